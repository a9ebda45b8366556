"""The cosines between features and class weights, as logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._precision import full_precision


def cosine_logits(features: Tensor, weight: Tensor) -> Tensor:
    """cos(theta_{i,c}) between each feature and each class's weight; bias and lengths play no part.

    Args:
        features: h, [B, A].
        weight: The classifier's weight W, [C, A].

    Returns:
        [B, C], from -1 to 1; float32 for half-precision features.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and weight of {tuple(weight.shape)} must be [B, A] and [C, A]."
        )
    with full_precision(features):
        features = upcast(features)
        return F.normalize(features) @ F.normalize(weight.to(features.dtype)).t()
