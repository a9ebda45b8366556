"""LPL for several labels at once: one shift of the logit per class [lpl 34-41]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._multi_hot import check_multi_hot


def multi_label_lpl(
    logits: Tensor,
    target: Tensor,
    sign: Tensor,
    bounds: Tensor,
    solver: str = "closed_form",
    alpha: float = 0.1,
    steps: int = 10,
) -> Tensor:
    """The shift of each class's logit, -S(c - tau) epsilon_c [lpl 34].

    For the tail (sign +1) it lowers the logit: the loss of positives rises, that of negatives falls. For the head
    (sign -1) it raises it. Both terms of eq. 34 are monotone in the shift, so the bound is attained whatever the
    logits. ``"pgd"`` gets there by steps along the mean derivative, sigmoid(-u) for positives and sigmoid(u) for
    negatives (eqs. 39-41 are printed with 1 - sigmoid(-u) and sigmoid(u) - 1), and stops at the bound.

    Args:
        logits: u, [B, C]; read by ``"pgd"`` only.
        target: Multi-hot labels, [B, C], of any dtype; read by ``"pgd"`` only.
        sign: +1 for tail and -1 for head classes, [C], see ``frequency_split``.
        bounds: epsilon_c, [C], see ``frequency_bounds``.
        solver: ``"closed_form"`` or ``"pgd"``.
        alpha: The size of a step of ``"pgd"``, above 0.
        steps: The number of steps of ``"pgd"``, at least 0.

    Returns:
        The shift, to be added to the logits, [C], detached; float32 for half-precision logits.

    Raises:
        ValueError: If solver is unknown, a number is outside its range or the shapes do not fit.
    """
    check_choice("solver", solver, ("closed_form", "pgd"))
    check_positive("alpha", alpha)
    if steps < 0:
        raise ValueError(f"steps={steps!r} must be at least 0.")
    check_multi_hot(logits, target)
    for name, value in (("sign", sign), ("bounds", bounds)):
        if value.shape != logits.shape[1:]:
            raise ValueError(f"{name} has the shape {tuple(value.shape)} where [{logits.shape[1]}] is needed.")
    with torch.no_grad():
        logits = upcast(logits)
        sign, bounds = sign.to(logits.dtype), bounds.to(logits.dtype)
        if solver == "closed_form":
            return -sign * bounds
        lower = torch.zeros_like(bounds)
        for _ in range(steps if len(logits) else 0):
            shifted = logits - lower
            slope = torch.lerp(torch.sigmoid(shifted), torch.sigmoid(-shifted), target.to(logits.dtype)).mean(0)
            lower = (lower + alpha * sign * slope).clamp(-bounds, bounds)
        return -lower
