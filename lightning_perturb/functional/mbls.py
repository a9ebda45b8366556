"""MbLS: margin-based label smoothing."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.functional._arguments import check_logits, upcast


def mbls_penalty(logits: Tensor, margin: float = 10.0, reduction: str = "mean") -> Tensor:
    """The penalty of each sample on logits that trail the largest by more than a margin, relu(max_k u_k - u_j - m).

    Args:
        logits: u, [B, C].
        margin: m, at least 0.
        reduction: Over the classes: ``"mean"`` as in the authors' code, or ``"sum"`` as in their paper.

    Returns:
        The penalties, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the margin is negative, reduction is unknown or the shape does not fit.
    """
    check_positive("margin", margin, zero=True)
    check_choice("reduction", reduction, ("mean", "sum"))
    check_logits(logits)
    logits = upcast(logits)
    excess = (logits.amax(1, keepdim=True) - logits - margin).relu()
    return excess.mean(1) if reduction == "mean" else excess.sum(1)
