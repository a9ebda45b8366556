"""Focal loss: less weight for samples that are learnt."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability
from lightning_perturb.functional._multi_hot import check_multi_hot


def focal_loss(logits: Tensor, target: Tensor, gamma: float | Tensor = 2.0) -> Tensor:
    """The focal loss -(1 - p_y)^gamma log p_y.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        gamma: The focus, at least 0 (0 gives cross-entropy; 1 is usual on long tails); a number, or a tensor (scalar
            or [B]), whose values are not checked.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If gamma is negative or the shapes or dtypes do not fit.
    """
    log_p = label_log_probability(logits, target)
    # at p_y = 1 the power has no derivative for gamma below 1
    rest = log_p.expm1().neg().clamp(min=torch.finfo(log_p.dtype).tiny)
    return rest.pow(hyperparameter("gamma", gamma, log_p, open_high=True)) * -log_p


def binary_focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """The multi-label focal loss of each sample: the mean over classes of -(1 - p_t)^gamma log p_t.

    p_t is sigmoid(u) for a positive and sigmoid(-u) for a negative label.

    Args:
        logits: u, [B, C].
        target: Multi-hot labels, [B, C], of any dtype.
        gamma: The focus, at least 0.
        alpha: The weight of positives, from 0 to 1, negatives having 1 - alpha (.25 in detection); none weights
            neither.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If a number is outside its range or the shapes differ.
    """
    return binary_focal_entries(logits, target, gamma, alpha).mean(1)


def binary_focal_entries(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """The entries that ``binary_focal_loss`` averages.

    Args:
        logits: u, [B, C].
        target: Multi-hot labels, [B, C], of any dtype.
        gamma: The focus, at least 0.
        alpha: The weight of positives, or none.

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If a number is outside its range or the shapes differ.
    """
    check_positive("gamma", gamma, zero=True)
    if alpha is not None:
        check_rate("alpha", alpha)
    check_multi_hot(logits, target)
    logits = upcast(logits)
    positive, negative = _entry(logits, gamma), _entry(-logits, gamma)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return torch.lerp(negative, positive, target.to(logits.dtype))


def _entry(agreeing: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p with p = sigmoid(a); 1 - p = sigmoid(-a), whose logarithm keeps the digits."""
    return torch.exp(gamma * F.logsigmoid(-agreeing)) * -F.logsigmoid(agreeing)
