"""Large-margin softmax."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.feature_logits import FeatureLogitsModule
from lightning_perturb.functional import large_margin_logits


class LargeMarginSoftmax(FeatureLogitsModule):
    """The angle between a feature and the weight of its given class counts m times (Liu et al., 2016).

    The lowered logit is blended with the plain one, (lowered + β plain) / (1 + β), where β falls in every training
    batch. Logits are W h: the last layer's bias plays no part.

    Args:
        m: The margin, a whole number; the authors use 2, 3 and 4. 1 leaves the logits as they are.
        beta: First β.
        beta_decay: Factor of β after every batch.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "hyperparameter", "corpus")

    blend: Tensor

    def __init__(self, *args: Any, m: int = 4, beta: float = 100.0, beta_decay: float = 0.99, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if m < 1:
            raise ValueError(f"m={m} must be at least 1.")
        check_positive("beta", beta, zero=True)
        check_range("beta_decay", beta_decay, 0.0, 1.0)
        self.m = m
        self.beta_decay = beta_decay
        self.add_state("blend", torch.tensor(float(beta)))

    def classify(self, features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
        """W h."""
        return F.linear(features, weight)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """W h with the given class's entry lowered."""
        lowered = large_margin_logits(outputs["features"], outputs["weight"], batch.y, self.m, float(self.blend))
        # no other number, but what the logits carry: the bias for data-parallel training, and what is not finite
        return super().perturb_logits(lowered + 0 * logits, outputs, batch)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Lets β fall."""
        super().update_state(outputs, batch)
        if self.phase != "warmup":
            self.blend *= self.beta_decay
