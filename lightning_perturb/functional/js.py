"""JS: the generalised Jensen-Shannon divergence between label and prediction as a loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability
from lightning_perturb.functional._ratios import log1p_ratio


def js_loss(logits: Tensor, target: Tensor, pi1: float | Tensor = 0.5) -> Tensor:
    """The Jensen-Shannon loss [narl 5] in closed form: cross-entropy at pi1 = 0, 1 - p_y at pi1 = 1.

    Only p_y matters. With a(x) = log(1 + x) / x and r = 1 - p_y, which leave nothing to divide by zero, eq. 5 is
    r (1 + (a(-(1 - pi1) r) - a(pi1 r / p_y)) / a(-pi1)).

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        pi1: The weight of the label, from 0 to 1; a number, or a tensor (scalar or [B]), whose values are not checked
            and which receives gradients (for values inside (0, 1)).

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If pi1 is outside 0..1 or the shapes or dtypes do not fit.
    """
    log_p = label_log_probability(logits, target)
    pi1 = hyperparameter("pi1", pi1, log_p, 0.0, 1.0)
    rest = -log_p.expm1()
    # the odds overflow long after their term has vanished
    odds = log_p.clamp(min=-60).neg().expm1()
    label_part = _mixture_ratio(rest, log_p, pi1) - log1p_ratio(pi1 * odds)
    return rest * (1 + label_part / log1p_ratio(-pi1))


def _mixture_ratio(rest: Tensor, log_p: Tensor, pi1: Tensor) -> Tensor:
    """a(x) = log(1 + x) / x at x = -(1 - pi1) (1 - p_y), where 1 + x = pi1 + (1 - pi1) p_y."""
    x = (pi1 - 1) * rest
    near = x > -0.5
    # far from 0 the sum is taken in log space, or a small p_y would be lost in it
    log_pi = torch.where(pi1 > 0, torch.where(pi1 > 0, pi1, 1.0).log(), -torch.inf)
    log_other = torch.where(near, 0.5, 1 - pi1).log() + torch.where(near, 0.0, log_p)
    log_sum = log_other - F.logsigmoid(log_other - log_pi)
    return torch.where(near, log1p_ratio(torch.where(near, x, 0.0)), log_sum / torch.where(near, 1.0, x))
