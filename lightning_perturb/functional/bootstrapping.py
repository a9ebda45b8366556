"""Soft and hard bootstrapping [tax 37-38]: labels moved towards the network's own prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_logits, upcast
from lightning_perturb.functional.cross_entropy import one_hot
from lightning_perturb.functional.label_perturbation import perturb_label


def soft_bootstrapping_target(logits: Tensor, target: Tensor, beta: float = 0.95, detach: bool = False) -> Tensor:
    """Soft bootstrapping labels, beta y + (1 - beta) S(u) [tax 38 with lambda = 1 - beta].

    The prediction is that of the current batch. Published codes clamp probabilities before the logarithm; with
    ``cross_entropy`` on logits there is nothing to clamp.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        beta: The weight of the given label, from 0 to 1.
        detach: Whether the prediction inside the label is a constant. The published loss differentiates it.

    Returns:
        Soft labels, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If beta is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_rate("beta", beta)
    check_logits(logits)
    return perturb_label(target, torch.softmax(upcast(logits.detach() if detach else logits), 1), 1 - beta)


def hard_bootstrapping_target(logits: Tensor, target: Tensor, beta: float = 0.8) -> Tensor:
    """Hard bootstrapping labels, beta y + (1 - beta) e_argmax(u) [tax 38 with lambda = 1 - beta].

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        beta: The weight of the given label, from 0 to 1.

    Returns:
        Soft labels, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If beta is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_rate("beta", beta)
    check_logits(logits)
    predicted = one_hot(logits.argmax(1), logits.shape[1], upcast(logits).dtype)
    return perturb_label(target, predicted, 1 - beta)
