"""LogPert: a sample-level logit perturbation under an l1 penalty, exactly and by steps [tax 52-55]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional.cross_entropy import logit_gradient


def logpert(logits: Tensor, target: Tensor, lam: float | Tensor) -> Tensor:
    """The exact minimiser over v of CE(u + v, y) + lam ||v||_1 [tax 54].

    Raising the given class lowers the loss most per unit of the norm, so only that class moves, and just so far
    that p_y = 1 - lam: v_y = max(0, log((1 - lam) / lam) - (u_y - logsumexp_{j != y} u_j)). Samples with
    p_y >= 1 - lam stay as they are, and lam >= 1 moves none. With two classes the minimiser is not unique (only the
    margin matters); this one is returned.

    Args:
        logits: u, [B, C] with C >= 2.
        target: Class ids, [B] (int64).
        lam: The weight of the norm, above 0; a number, or a tensor (scalar or [B]), whose values are not checked.

    Returns:
        v, [B, C], detached, since [tax 55] holds it fixed; float32 for half-precision logits.

    Raises:
        ValueError: If lam is not positive or the shapes or dtypes do not fit.
    """
    with torch.no_grad():
        odds = _log_odds(logits, target)
        raised = _at_least(odds, _threshold(lam)) - odds
        v = raised.new_zeros(logits.shape)
        return v.scatter_(1, target.unsqueeze(1), raised.unsqueeze(1))


def logpert_loss(logits: Tensor, target: Tensor, lam: float | Tensor) -> Tensor:
    """The LogPert loss with its inner minimum taken, min_v CE(u + v, y) + lam ||v||_1 [tax 53], in closed form.

    It is cross-entropy, continued linearly in the log-odds m = u_y - logsumexp_{j != y} u_j where p_y < 1 - lam.
    The gradient is the one at the fixed minimiser (envelope theorem), S(u + v) - e_y, so no entry exceeds lam there,
    and no v is built. In a tensor lam the gradient is v_y.

    Args:
        logits: u, [B, C] with C >= 2.
        target: Class ids, [B] (int64).
        lam: The weight of the norm, above 0 (lam >= 1 gives cross-entropy); a number, or a tensor (scalar or [B]),
            whose values are not checked.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If lam is not positive or the shapes or dtypes do not fit.
    """
    odds = _log_odds(logits, target)
    reached = _at_least(odds, _threshold(lam))
    return lam * (reached - odds) - F.logsigmoid(reached)


def logpert_step(
    logits: Tensor, v: Tensor, target: Tensor, lam: float, lr: float, solver: str = "subgradient"
) -> Tensor:
    """One step on the inner problem of LogPert [tax 54] from a stored perturbation.

    The smooth part has the gradient S(u + v) - e_y [tax 58]. ``"subgradient"`` adds lam sign(v) to it (0 at 0);
    ``"prox"`` soft-thresholds by lr lam after the step and so reaches exact zeros.

    Args:
        logits: u, [B, C].
        v: The perturbation so far, [B, C].
        target: Class ids, [B] (int64).
        lam: The weight of the norm, above 0.
        lr: The step size, above 0.
        solver: ``"subgradient"`` or ``"prox"``.

    Returns:
        The new perturbation, [B, C], detached, in the dtype of v.

    Raises:
        ValueError: If lam or lr is not positive, solver is unknown, or the shapes or dtypes do not fit.
    """
    check_positive("lam", lam)
    check_positive("lr", lr)
    check_choice("solver", solver, ("subgradient", "prox"))
    check_ids(target, logits.shape[0])
    if v.shape != logits.shape:
        raise ValueError(f"v has the shape {tuple(v.shape)} beside logits of {tuple(logits.shape)}; they must agree.")
    with torch.no_grad():
        old = upcast(v)
        new = torch.add(old, logit_gradient(upcast(logits) + old, target), alpha=-lr)
        new = F.softshrink(new, lr * lam) if solver == "prox" else new.sub_(old.sign(), alpha=lr * lam)
        return new.to(v.dtype)


def _log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """log(p_y / (1 - p_y)) = u_y - logsumexp_{j != y} u_j, [B], without the cancellation in 1 - p_y."""
    check_logits(logits)
    check_ids(target, logits.shape[0])
    logits, given = upcast(logits), target.unsqueeze(1)
    rivals = logits.scatter(1, given, -math.inf).logsumexp(1)
    return logits.gather(1, given).squeeze(1) - rivals


def _threshold(lam: float | Tensor) -> float | Tensor:
    """The log-odds at p_y = 1 - lam, below which a sample is perturbed; -inf for lam >= 1."""
    if isinstance(lam, Tensor):
        # the loss does not change with the threshold to first order: what lam does to it needs no gradient
        return torch.logit((1 - lam.detach()).clamp(min=0))
    check_positive("lam", lam)
    return math.log1p(-lam) - math.log(lam) if lam < 1 else -math.inf


def _at_least(odds: Tensor, threshold: float | Tensor) -> Tensor:
    """The log-odds after the perturbation."""
    return torch.maximum(odds, threshold) if isinstance(threshold, Tensor) else odds.clamp(min=threshold)
