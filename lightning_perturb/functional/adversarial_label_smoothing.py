"""Adversarial label smoothing: labels moved towards the least likely class [tax 25, 26]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_logits, check_target
from lightning_perturb.functional.label_perturbation import perturb_label


def adversarial_label_smoothing_target(logits: Tensor, target: Tensor, lam: float = 0.1) -> Tensor:
    """The smoothed labels that raise the loss most, y + lam (p* - y) [tax 25].

    The loss is linear in the label, so p* is all mass on the class that the network finds least likely [tax 26]. It
    is a constant in the logits.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        lam: How much of the label moves, from 0 to 1.

    Returns:
        Soft labels, [B, C], float32 (float64 for float64 logits).

    Raises:
        ValueError: If lam is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_rate("lam", lam)
    check_logits(logits)
    check_target(target, *logits.shape)
    with torch.no_grad():
        worst = torch.zeros_like(logits, dtype=torch.promote_types(logits.dtype, torch.float32))
        worst.scatter_(1, logits.argmin(1, keepdim=True), 1.0)
        return perturb_label(target, worst, lam)
