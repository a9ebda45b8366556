"""Class weights from class counts, and the class-balanced focal loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_range
from lightning_perturb.functional._arguments import check_ids, check_logits
from lightning_perturb.functional._counts import check_counts
from lightning_perturb.functional.cross_entropy import one_hot
from lightning_perturb.functional.focal import binary_focal_entries


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Weights (1 - beta) / (1 - beta^n_c), scaled to sum to C (Cui et al., 2019).

    They multiply the losses of samples, whose plain mean is then taken: a weighted mean, as PyTorch's cross-entropy
    with weights takes, is another loss.

    Args:
        counts: The numbers of samples n_c, [C], above 0.
        beta: From 0 (no weighting) towards 1 (inverse frequency), 1 excluded.

    Returns:
        [C], float32 (float64 for float64 counts).

    Raises:
        ValueError: If beta is outside [0, 1) or a class has no samples.
    """
    check_range("beta", beta, 0.0, 1.0, open_high=True)
    check_counts(counts)
    if beta == 0:
        return torch.ones_like(counts, dtype=_dtype(counts))
    # 1 - beta^n in double precision: beta close to 1 would leave few digits
    return _scaled(-1 / torch.expm1(counts.double() * math.log(beta)), counts)


def inverse_frequency_weights(counts: Tensor) -> Tensor:
    """Weights 1 / n_c, scaled to sum to C.

    Args:
        counts: The numbers of samples n_c, [C], above 0.

    Returns:
        [C], float32 (float64 for float64 counts).

    Raises:
        ValueError: If a class has no samples.
    """
    check_counts(counts)
    return _scaled(1 / counts.double(), counts)


def class_balanced_focal_loss(logits: Tensor, target: Tensor, weights: Tensor, gamma: float = 1.0) -> Tensor:
    """The class-balanced focal loss: the weight of the given class times the sum of the focal losses of all classes.

    Each class is its own sigmoid, as in the authors' code, which also starts the last layer's bias at -log(C - 1).

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        weights: The class weights, [C], see ``effective_number_weights``.
        gamma: The focus, at least 0.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If gamma is negative or the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    if weights.shape != logits.shape[1:]:
        raise ValueError(f"weights have the shape {tuple(weights.shape)} where [{logits.shape[1]}] is needed.")
    entries = binary_focal_entries(logits, one_hot(target, logits.shape[1]), gamma)
    return weights[target].to(entries.dtype) * entries.sum(1)


def _scaled(weights: Tensor, counts: Tensor) -> Tensor:
    return (weights * (len(weights) / weights.sum())).to(_dtype(counts))


def _dtype(counts: Tensor) -> torch.dtype:
    return torch.float64 if counts.dtype == torch.float64 else torch.float32
