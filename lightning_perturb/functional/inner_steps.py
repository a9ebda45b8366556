"""Steps of the inner problems that find a perturbation: within a bound [tax 31, 32], or at a price [tax 27]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive


def bounded_step(
    delta: Tensor,
    gradient: Tensor,
    sign: Tensor,
    step: float | Tensor,
    eps: float | Tensor = math.inf,
    norm: str = "linf",
) -> Tensor:
    """One projected gradient step of several perturbations within a ball [tax 31, 32].

    Args:
        delta: The perturbations so far, [G, ...].
        gradient: The gradients of their losses, in the shape of delta.
        sign: 1 raises a loss, -1 lowers it, 0 leaves the perturbation as it is; [G].
        step: The step size, a number or a tensor that broadcasts to delta.
        eps: The radius of the ball, likewise.
        norm: ``"linf"`` steps along the signs, ``"l2"`` along the gradient of unit length, ``"none"`` along the
            gradient itself, in no ball.

    Returns:
        The new perturbations, [G, ...].

    Raises:
        ValueError: If norm is unknown.
    """
    check_choice("norm", norm, ("linf", "l2", "none"))
    way = _rows(sign, delta)
    if norm == "none":
        return delta + way * gradient * step
    if norm == "linf":
        moved = delta + way * gradient.sign() * step
        return torch.where(way == 0, delta, moved.clamp(-_like(eps, delta), _like(eps, delta)))
    moved = delta + way * _unit(gradient * step) * step
    scale = _like(eps, delta).clamp(min=torch.finfo(delta.dtype).tiny)
    return torch.where(way == 0, delta, moved / _lengths(moved / scale).clamp(min=1))


def priced_step(
    delta: Tensor, gradient: Tensor, sign: Tensor, step: float, lam: float | Tensor, penalty: str = "l1"
) -> Tensor:
    """One proximal gradient step of several perturbations that are charged for [tax 27].

    It goes along the gradient and then minimises the penalty around where it came, so that l1 and l2 reach exact zeros.

    Args:
        delta: The perturbations so far, [G, ...].
        gradient: The gradients of their losses, in the shape of delta.
        sign: 1 raises a loss, -1 lowers it, 0 leaves the perturbation as it is; [G].
        step: The step size, above 0.
        lam: The price, at least 0; a number or a tensor that broadcasts to delta.
        penalty: ``"l1"``: lam ||delta||_1; ``"l2"``: lam ||delta||_2; ``"squared"``: lam ||delta||_2^2 / 2.

    Returns:
        The new perturbations, [G, ...].

    Raises:
        ValueError: If step is not positive or penalty is unknown.
    """
    check_positive("step", step)
    check_choice("penalty", penalty, ("l1", "l2", "squared"))
    way = _rows(sign, delta)
    moved = delta + way * gradient * step
    threshold = _like(lam, delta) * step
    if penalty == "l1":
        new = moved.sign() * (moved.abs() - threshold).clamp(min=0)
    elif penalty == "l2":
        new = moved * (1 - threshold / _lengths(moved).clamp(min=torch.finfo(delta.dtype).tiny)).clamp(min=0)
    else:
        new = moved / (1 + threshold)
    return torch.where(way == 0, delta, new)


def project_simplex(values: Tensor) -> Tensor:
    """The nearest distributions over the classes, in the Euclidean distance.

    Args:
        values: [B, C].

    Returns:
        [B, C], rows that are at least 0 and sum to 1.
    """
    ordered = values.sort(1, descending=True).values
    places = torch.arange(1, values.shape[1] + 1, device=values.device)
    excess = ordered.cumsum(1) - 1
    # of a row that is not a number none is, and it shall stay that
    kept = (ordered - excess / places > 0).sum(1, keepdim=True).clamp(min=1)
    return (values - excess.gather(1, kept - 1) / kept).clamp(min=0)


def priced_label(target: Tensor, log_prob: Tensor, sign: Tensor, lam: float) -> Tensor:
    """The label that lowers, or raises, the loss at a squared price [tax 6, 7, 27].

    The minimiser over distributions q of -q log p + lam ||q - y||_2^2 / 2 where sign is -1, the maximiser of
    -q log p - lam ||q - y||_2^2 / 2 where it is 1.

    Args:
        target: y, soft labels, [B, C].
        log_prob: log p, [B, C].
        sign: 1 raises a loss, -1 lowers it, 0 leaves the label as it is; [B].
        lam: The price, above 0.

    Returns:
        q, [B, C].

    Raises:
        ValueError: If lam is not positive.
    """
    check_positive("lam", lam)
    way = _rows(sign, target)
    # beyond this distance a class has no mass left whatever the price
    moved = project_simplex(target - way * (log_prob / lam).clamp(min=-1e4))
    return torch.where(way == 0, target, moved)


def priced_loss_change(loss: Tensor, sign: Tensor, lam: float, penalty: str = "l1") -> Tensor:
    """The relative loss perturbation rho of (1 + rho) l at a price, which is self-paced learning [tax 8, 27].

    The minimiser over rho in [-1, 0] where sign is -1: at the price lam |rho| all or nothing, -1 where l > lam; at
    lam rho^2 / 2 the linear -min(1, l / lam). Where sign is 1, the maximiser of (1 + rho) l - lam rho^2 / 2, l / lam.

    Args:
        loss: l, at least 0, [G].
        sign: 1 raises a loss, -1 lowers it, 0 leaves it; [G].
        lam: The price, above 0.
        penalty: ``"l1"`` or ``"squared"``.

    Returns:
        rho, [G].

    Raises:
        ValueError: If lam is not positive or penalty is unknown.
    """
    check_positive("lam", lam)
    check_choice("penalty", penalty, ("l1", "squared"))
    lowered = -(loss > lam).to(loss.dtype) if penalty == "l1" else -(loss / lam).clamp(max=1)
    return torch.where(sign < 0, lowered, torch.where(sign > 0, loss / lam, 0.0))


def shared_slack(loss: Tensor, lam: float) -> Tensor:
    """The slack that all samples share, the minimiser over xi >= 0 of mean max(0, l - xi) + lam xi [tax 17, 18].

    The share of samples whose loss is above it is at most lam: only the hardest are trained on, as in nu-SVM.

    Args:
        loss: l, at least 0, [B] with B of at least 1.
        lam: The price, at least 0; from 1 on there is no slack.

    Returns:
        xi, a scalar.

    Raises:
        ValueError: If lam is negative.
    """
    check_positive("lam", lam, zero=True)
    above = math.floor(lam * len(loss) + 1e-9)
    if above >= len(loss):
        return loss.new_zeros(())
    return loss.sort(descending=True).values[above]


def bounded_reweighting(loss: Tensor, samples: Tensor, sign: float, eps: float) -> Tensor:
    """The relative loss perturbations rho that move the mean loss most when the weights 1 + rho keep the mean 1.

    They maximise (sign 1) or minimise (sign -1) the mean of (1 + rho) l over mean rho = 0, mean rho^2 <= eps^2 and
    rho >= -1, as distributionally robust optimization does: rho = sign eps (l - mean l) / sd l where that is nowhere
    below -1; otherwise the groups with the least to give have the weight 0, and the rest the same form.

    Args:
        loss: The mean losses of groups, [G].
        samples: The samples of each group, [G].
        sign: 1 or -1.
        eps: The bound, at least 0.

    Returns:
        rho, [G], at least -1.

    Raises:
        ValueError: If eps is negative.
    """
    check_positive("eps", eps, zero=True)
    share = samples / samples.sum().clamp(min=1)
    away = sign * (loss - (share * loss).sum())
    spread = (share * away.square()).sum().sqrt()
    away, order = (away / spread.clamp(min=torch.finfo(loss.dtype).tiny)).sort()
    share = share[order]
    # by the number of groups without weight: what the others have together, their mean and their variance
    left = _sums_from(share).clamp(min=torch.finfo(loss.dtype).tiny)
    mean = _sums_from(share * away) / left
    variance = (_sums_from(share * away.square()) / left - mean.square()).clamp(min=0)
    raised = ((1 - left) / left).clamp(min=0)
    scaled = (eps**2 - (1 - left)) / left - raised.square()
    # equal losses have a variance of rounding errors alone
    rounding = 100 * torch.finfo(loss.dtype).eps
    slope = torch.where(variance > rounding, (scaled.clamp(min=0) / variance.clamp(min=rounding)).sqrt(), 0.0)
    fits = (scaled >= 0) & (raised + slope * (away - mean) >= -1)
    first = fits.to(torch.int8).argmax()
    rho = raised[first] + slope[first] * (away - mean[first])
    rho = torch.where(torch.arange(len(loss), device=loss.device) < first, -1.0, rho.clamp(min=-1))
    rho = torch.empty_like(rho).index_copy_(0, order, rho)
    return torch.where(spread > 0, rho, 0.0)


def _sums_from(values: Tensor) -> Tensor:
    """The sum of each value and all after it."""
    return values.flip(0).cumsum(0).flip(0)


def _rows(sign: Tensor, like: Tensor) -> Tensor:
    return sign.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def _like(value: float | Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype) if isinstance(value, Tensor) else like.new_full((), value)


def _lengths(values: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)
    return lengths


def _unit(values: Tensor) -> Tensor:
    """Rows of unit length; zero stays zero."""
    # the squares of a well-learnt group's gradient underflow: bring it to 1 before
    peak = values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)
    values = values / torch.where(peak > 0, peak, 1.0)
    return values / _lengths(values).clamp(min=1)
