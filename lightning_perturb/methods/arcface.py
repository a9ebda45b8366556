"""ArcFace, and its form with a learned margin for each category [tax 48-50]."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.feature_logits import FeatureLogitsModule
from lightning_perturb.functional import arcface_logits, cosine_logits


class ArcFace(FeatureLogitsModule):
    """The angle to the given class grows by a margin: s cos(θ_y + m) against s cos(θ_c) [tax 48].

    Logits are s cos θ in evaluation too; the last layer's bias plays no part.

    Args:
        margin: m in radians, from 0 to π/2.
        scale: s; 64 is the authors'. 0 takes ||w_y|| ||h|| of each sample, as the equation has it (in evaluation, which
            knows no y, the mean over classes for ||w_y||).
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "hyperparameter", "corpus")
    paper = "tax"

    def __init__(self, *args: Any, margin: float = 0.5, scale: float = 64.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("margin", margin, 0.0, math.pi / 2)
        check_positive("scale", scale, zero=True)
        self.margin = margin
        self.scale = scale

    def classify(self, features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
        """s cos θ."""
        cosine = cosine_logits(features, weight)
        if self.scale:
            return self.scale * cosine
        return _lengths(features, cosine).unsqueeze(1) * _lengths(weight, cosine).mean() * cosine

    def margins(self, batch: Batch) -> float | Tensor:
        """m, or that of each sample ``[B]``."""
        return self.margin

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """s cos(θ_y + m) for the given class."""
        features, weight = outputs["features"], outputs["weight"]
        # no other number, but what the logits carry: the bias for data-parallel training, and what is not finite
        cosine = cosine_logits(features, weight) + 0 * logits
        scale: float | Tensor = self.scale
        if not self.scale:
            scale = _lengths(features, cosine) * _lengths(weight, cosine)[batch.y]
        raised = arcface_logits(cosine, batch.y, self.margins(batch), scale)
        return super().perturb_logits(raised, outputs, batch)


class CategoryArcFace(MetaPerturbationModule, ArcFace):
    """ArcFace with a margin for each category, learned on clean samples [tax 49-50].

    Categories are the classes, or groups of samples that the batches name (in the paper, skin tones).

    Args:
        margin: First value of every margin, in radians; they stay between 0 and π/2.
        group_key: Name of the batch's tensor of group ids ``[B]``; None takes the classes.
        num_groups: Number of groups; with ``group_key`` only.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule` and
            :class:`~lightning_perturb.methods.ArcFace`.
    """

    coordinates = Coordinates.of("logit", "negative", "meta", "category")

    group_margins: Tensor

    def __init__(
        self,
        *args: Any,
        margin: float = 0.5,
        group_key: str | None = None,
        num_groups: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, margin=margin, **kwargs)
        if (group_key is None) != (num_groups is None):
            raise ValueError(
                f"group_key={group_key!r} and num_groups={num_groups} belong together. Give both, or neither for a "
                "margin of each class."
            )
        if num_groups is not None:
            check_positive("num_groups", num_groups)
        self.group_key = group_key
        start = torch.full((num_groups or self.num_classes,), float(margin))
        self.add_meta("group_margins", start, 0.0, math.pi / 2)

    def margins(self, batch: Batch) -> Tensor:
        """m_g of each sample ``[B]``."""
        if self.group_key is None:
            return self.group_margins[batch.y]
        groups = batch.extra.get(self.group_key)
        if groups is None:
            raise ValueError(
                f"group_key={self.group_key!r} is no tensor of the batch, which has {sorted(batch.extra)}. Yield a "
                "mapping with it from the loader."
            )
        return self.group_margins[groups.long()]


def _lengths(rows: Tensor, like: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows.to(like.dtype), dim=1)
    return lengths
