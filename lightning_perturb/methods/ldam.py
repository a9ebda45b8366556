"""LDAM: margins that are larger for rarer classes, alone and with deferred re-weighting."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.feature_logits import FeatureLogitsModule
from lightning_perturb.functional import cosine_logits, ldam_logits, ldam_margins
from lightning_perturb.methods.class_weights import ClassBalanced


class LDAM(FeatureLogitsModule, CountedModule):
    """Label-distribution-aware margins: the given class's logit loses m_y, proportional to n_y^(-1/4) [lpl 8-9].

    As in the authors' code logits are cosines between features and class weights times a scale, in training and in
    evaluation; the last layer's bias plays no part.

    Args:
        margin: Margin of the rarest class, in units of a cosine.
        scale: Factor of the margined logits. None takes 30 for cosines and 1 for plain logits.
        cosine: Take cosines (authors' code); False takes the network's own logits, as the equation is written.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "prior", "category")

    margins: Tensor

    def __init__(
        self, *args: Any, margin: float = 0.5, scale: float | None = None, cosine: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("margin", margin)
        self.margin = margin
        self.scale = (30.0 if cosine else 1.0) if scale is None else scale
        check_positive("scale", self.scale)
        self.cosine = cosine
        self.add_state("margins", torch.zeros(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """m_c."""
        super().use_counts(counts)
        self.margins.copy_(ldam_margins(counts, self.margin))

    def classify(self, features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
        """s cos θ, or s u."""
        return self.scale * (cosine_logits(features, weight) if self.cosine else logits)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """s (cos θ - m_y e_y)."""
        lowered = ldam_logits(logits, batch.y, self.scale * self.margins, scale=1.0)
        return super().perturb_logits(lowered, outputs, batch)


class LDAMDRW(ClassBalanced, LDAM):
    """LDAM with deferred re-weighting: effective-number weights in the last epochs, when the rate is small.

    The authors train 200 epochs with rate 0.1, times 0.01 after epochs 160 and 180, and divide by the sum of the
    weights in the batch.

    Args:
        from_epoch: First epoch with weights.
        normalise: As in :class:`~lightning_perturb.methods.ReWeighting`.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LDAM` and
            :class:`~lightning_perturb.methods.ClassBalanced`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), "prior", "category")

    def __init__(
        self, *args: Any, from_epoch: int = 160, normalise: Literal["none", "batch"] = "batch", **kwargs: Any
    ) -> None:
        super().__init__(*args, from_epoch=from_epoch, normalise=normalise, **kwargs)
