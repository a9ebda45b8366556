"""Logits without the part that the drift of the optimizer's momentum causes (Tang et al., 2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._precision import full_precision


def multi_head_logits(
    features: Tensor, weight: Tensor, heads: int = 2, scale: float = 16.0, gamma: float = 1 / 32
) -> Tensor:
    """scale / K sum_k (h_k / ||h_k||) . (w_ck / (||w_ck|| + gamma)), over K parts of feature and weight.

    Args:
        features: h, [B, A].
        weight: The classifier's weight W, [C, A]; there is no bias.
        heads: K, which divides A.
        scale: The factor, tau in the paper.
        gamma: What makes short rows of the weight count less, at least 0.

    Returns:
        The logits, [B, C]; float32 for half precision.

    Raises:
        ValueError: If a number is out of range, or the shapes do not fit.
    """
    return _logits(features, weight, None, 0.0, heads, scale, gamma)


def tde_logits(
    features: Tensor,
    weight: Tensor,
    direction: Tensor,
    alpha: float | Tensor = 3.0,
    heads: int = 2,
    scale: float = 16.0,
    gamma: float = 1 / 32,
) -> Tensor:
    """The total direct effect: ``multi_head_logits`` after h_k / ||h_k|| lost alpha times its part along d_k.

    Args:
        features: h, [B, A].
        weight: The classifier's weight W, [C, A].
        direction: d, the moving average of the features in training, of any length, [A].
        alpha: How much of the part along d is taken off, a number or a scalar tensor; 0 takes nothing.
        heads: K, which divides A.
        scale: The factor, tau in the paper.
        gamma: What makes short rows of the weight count less, at least 0.

    Returns:
        The logits, [B, C]; float32 for half precision.

    Raises:
        ValueError: If a number is out of range, or the shapes do not fit.
    """
    _check_direction(features, direction)
    return _logits(features, weight, direction, alpha, heads, scale, gamma)


def drift_cosines(features: Tensor, direction: Tensor, heads: int = 2) -> Tensor:
    """The cosine of each feature with the direction, in each of its parts.

    Args:
        features: h, [B, A].
        direction: d, [A].
        heads: K, which divides A.

    Returns:
        [B, K]; float32 for half precision, 0 where a part is.

    Raises:
        ValueError: If the shapes do not fit.
    """
    _check_direction(features, direction)
    _check_heads(features, heads)
    with full_precision(features):
        features = upcast(features)
        drift = F.normalize(direction.to(features.dtype).reshape(heads, -1), dim=1)
        return (F.normalize(features.reshape(len(features), heads, -1), dim=2) * drift).sum(2)


def _check_direction(features: Tensor, direction: Tensor) -> None:
    if features.ndim != 2 or direction.shape != features.shape[1:]:
        raise ValueError(
            f"direction has the shape {tuple(direction.shape)} beside features of {tuple(features.shape)}. Give [A]."
        )


def _check_heads(features: Tensor, heads: int) -> None:
    if heads < 1 or features.shape[1] % heads:
        raise ValueError(f"heads={heads} does not divide the {features.shape[1]} features. Choose a divisor.")


def _logits(
    features: Tensor,
    weight: Tensor,
    direction: Tensor | None,
    alpha: float | Tensor,
    heads: int,
    scale: float,
    gamma: float,
) -> Tensor:
    check_positive("scale", scale)
    check_positive("gamma", gamma, zero=True)
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and weight of {tuple(weight.shape)} must be [B, A] and [C, A]."
        )
    _check_heads(features, heads)
    with full_precision(features):
        features = upcast(features)
        parts = F.normalize(features.reshape(len(features), heads, -1), dim=2)
        rows = weight.to(features.dtype).reshape(len(weight), heads, -1)
        # as a quotient a row of zeros would have no gradient where gamma is 0
        rows = rows / (rows.norm(dim=2, keepdim=True) + gamma) if gamma else F.normalize(rows, dim=2)
        if direction is not None:
            drift = F.normalize(direction.to(features.dtype).reshape(heads, -1), dim=1)
            parts = parts - alpha * (parts * drift).sum(2, keepdim=True) * drift
        return scale / heads * (parts.flatten(1) @ rows.flatten(1).t())
