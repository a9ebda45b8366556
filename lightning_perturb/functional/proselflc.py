"""ProSelfLC: labels corrected by the prediction as far as time and the prediction's certainty allow."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_logits, upcast
from lightning_perturb.functional.label_perturbation import perturb_label


def trust(step: float, total_steps: float, B: float, r: float) -> float:
    """The global trust g = 1 / (1 + exp(-B (t / T - r))) in the prediction at a point of training.

    Args:
        step: t, counted from 1, in the unit of total_steps.
        total_steps: T, above 0.
        B: The steepness; published grid 4 to 14.
        r: The share of training at which g is one half; published grid .2 to .7.

    Returns:
        g, in [0, 1].

    Raises:
        ValueError: If total_steps is not positive.
    """
    if not total_steps > 0:
        raise ValueError(f"total_steps={total_steps!r} must be above 0: it is the length of the training.")
    # the same sigmoid without an exponential that can overflow
    return 0.5 * (1 + math.tanh(0.5 * B * (step / total_steps - r)))


def proselflc_target(logits: Tensor, target: Tensor, global_trust: float | Tensor, detach: bool = False) -> Tensor:
    """ProSelfLC labels, (1 - e_i) y + e_i p with e_i = g (1 - H(p) / log C).

    The weight e_i is a constant; the prediction p inside the label is not, unless detached.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        global_trust: g, from 0 to 1, see ``trust``; a number or a scalar tensor, whose value is not checked.
        detach: Whether p inside the label is a constant. The published loss differentiates it.

    Returns:
        Soft labels, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If global_trust is outside 0..1 or the shapes or dtypes do not fit.
    """
    if not isinstance(global_trust, Tensor):
        check_rate("global_trust", global_trust)
    check_logits(logits)
    prob = torch.softmax(upcast(logits.detach() if detach else logits), 1)
    with torch.no_grad():
        entropy = torch.special.entr(prob).sum(1)
        # rounding takes the entropy of uniform predictions above log C
        weight = (1 - entropy / math.log(prob.shape[1])).clamp_(0, 1) * global_trust
    return perturb_label(target, prob, weight)
