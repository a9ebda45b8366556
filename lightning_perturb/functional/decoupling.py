"""Classifiers that are balanced after the features were learned (Kang et al., 2020)."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._arguments import check_logits, upcast
from lightning_perturb.functional._precision import full_precision


def tau_normalized_weight(weight: Tensor, tau: float = 1.0) -> Tensor:
    """The classifier's rows over a power of their length, w_c / ||w_c||^tau.

    Training on a long tail leaves longer rows to frequent classes; this takes the difference back.

    Args:
        weight: W, [C, A].
        tau: The power: 0 leaves the rows as they are, 1 makes all of them equally long.

    Returns:
        [C, A]; float32 for half-precision weights. A row of zeros stays one.

    Raises:
        ValueError: If the weight is no matrix.
    """
    if weight.ndim != 2:
        raise ValueError(f"weight has the shape {tuple(weight.shape)}. Give one row per class, [C, A].")
    weight = upcast(weight)
    length: Tensor = weight.norm(dim=1, keepdim=True)
    return weight / length.masked_fill(length == 0, 1.0).pow(tau)


def tau_normalized_logits(features: Tensor, weight: Tensor, tau: float = 1.0) -> Tensor:
    """h . w_c / ||w_c||^tau, without the bias, as published.

    Args:
        features: h, [B, A].
        weight: W, [C, A].
        tau: The power, see ``tau_normalized_weight``.

    Returns:
        The logits, [B, C]; float32 for half precision.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and weight of {tuple(weight.shape)} must be [B, A] and [C, A]."
        )
    with full_precision(weight):
        balanced = tau_normalized_weight(weight, tau)
        return features.to(balanced.dtype) @ balanced.t()


def scaled_logits(logits: Tensor, scale: Tensor) -> Tensor:
    """f_c u_c: the classifier's rows, and biases, times one learned number a class.

    Args:
        logits: u, [B, C].
        scale: f, [C].

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_logits(logits)
    if scale.shape != logits.shape[1:]:
        raise ValueError(f"scale has the shape {tuple(scale.shape)} where [{logits.shape[1]}] is needed.")
    return upcast(logits) * scale
