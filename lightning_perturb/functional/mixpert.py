"""MixPert: which samples are hard, their loss-lowering logit perturbation, and its bounds [tax 56-61, 66]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.functional._arguments import column, upcast
from lightning_perturb.functional.cross_entropy import logit_gradient


def positive_perturbation(logits: Tensor, target: Tensor, eta: float | Tensor) -> Tensor:
    """The one-step positive logit perturbation v = eta (e_y - S(u)) [tax 59].

    It lowers the loss, and its largest entry is at most eta [tax 61]. It is a constant in the logits, as in the
    published code; a tensor eta receives gradients.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        eta: The step, the bound epsilon_1; a number of at least 0, or a tensor (scalar or [B]), whose values are not
            checked. Zero leaves a sample unperturbed.

    Returns:
        v, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If eta is negative or the shapes or dtypes do not fit.
    """
    if not isinstance(eta, Tensor):
        check_positive("eta", eta, zero=True)
    return logit_gradient(logits, target) * -column(eta)


def sample_bounds(
    loss: Tensor, tau: float | Tensor, eps1: float | Tensor, eps2: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The bounds of each sample's perturbations by its loss [tax 66].

    epsilon_1 l / tau for the positive one and epsilon_2 (2 - l / tau) for the negative one, the latter 0 from
    l = 2 tau on. A tau below the machine precision counts as that precision, so that both stay finite.

    Args:
        loss: The losses l, [B]; taken as constants.
        tau: The loss threshold, at least 0.
        eps1: The bound of the positive perturbation at l = tau.
        eps2: The bound of the negative perturbation at l = tau.

    Returns:
        The bounds of the positive and of the negative perturbation, each [B].

    Raises:
        ValueError: If tau, eps1 or eps2 is a negative number.
    """
    for name, value in (("tau", tau), ("eps1", eps1), ("eps2", eps2)):
        if not isinstance(value, Tensor):
            check_positive(name, value, zero=True)
    loss = upcast(loss.detach())
    smallest = torch.finfo(loss.dtype).eps
    ratio = loss / (tau.clamp(min=smallest) if isinstance(tau, Tensor) else max(tau, smallest))
    return ratio * eps1, (2 - ratio).clamp(min=0) * eps2


def hard_by_share(loss: Tensor, share: float) -> Tensor:
    """The hard samples of a batch by rank: those with the largest losses.

    Exactly k = round(share B) samples (Python's rounding: halves go to the even number); of equal losses the one
    that stands first in the batch counts as the larger.

    Args:
        loss: The losses, [B].
        share: The share of hard samples, from 0 (none) to 1 (all).

    Returns:
        True where a sample is hard, [B].

    Raises:
        ValueError: If share is outside 0..1.
    """
    check_rate("share", share)
    hardest = loss.detach().argsort(descending=True, stable=True)[: round(share * loss.shape[0])]
    return torch.zeros_like(loss, dtype=torch.bool).index_fill_(0, hardest, True)


def hard_by_value(loss: Tensor, tau: float | Tensor) -> Tensor:
    """The hard samples by value: l >= tau [tax 56, 57].

    Args:
        loss: The losses, [B].
        tau: The threshold, a number or a tensor (scalar or [B]).

    Returns:
        True where a sample is hard, [B].
    """
    return loss.detach() >= tau
