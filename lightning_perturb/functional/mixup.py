"""Mixup: inputs and labels moved towards those of a partner, the perturbations Mixup of Table 1 [tax]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive


def mix(own: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """w a + (1 - w) b, the perturbation (1 - w) (b - a) of a (Zhang et al., 2018).

    Args:
        own: a, float, [B, ...].
        partner: b, in the shape of a.
        weight: w, [B] or a scalar tensor, from 0 to 1; values are not checked.

    Returns:
        In the shape and dtype of a; gradients flow into all three.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if partner.shape != own.shape or weight.shape not in ((), own.shape[:1]):
        raise ValueError(
            f"own of shape {tuple(own.shape)}, partner of {tuple(partner.shape)} and weight of {tuple(weight.shape)} "
            "must be [B, ...], the same, and [B] or a scalar."
        )
    weight = weight.to(own.dtype)
    if weight.ndim:
        weight = weight.view(-1, *[1] * (own.ndim - 1))
    return torch.lerp(partner, own, weight)


def symmetric_beta(uniform: Tensor, alpha: float) -> Tensor:
    """Draws of Beta(alpha, alpha) from uniform numbers.

    Above 1/2 by Ulrich's transform of two numbers; up to 1/2 by Johnk's rejection, where a pair of numbers is taken
    with a probability of at least pi / 4: with n pairs, a draw fails with one of at most 0.22^n and is then 1/2.

    Args:
        uniform: Uniform numbers in [0, 1), [B, n, 2], all independent.
        alpha: The parameter, above 0; small values give draws near 0 and 1.

    Returns:
        [B], in the dtype of uniform.

    Raises:
        ValueError: If alpha is not positive or the numbers have another shape.
    """
    check_positive("alpha", alpha)
    if uniform.ndim != 3 or uniform.shape[1] < 1 or uniform.shape[2] != 2:
        raise ValueError(f"uniform has the shape {tuple(uniform.shape)}. Give [B, n, 2].")
    # 1 - u lies in (0, 1], whose logarithm is finite
    log_u, v = torch.log1p(-uniform[..., 0]), uniform[..., 1]
    if alpha > 0.5:
        radius = (-torch.expm1(log_u[:, 0] * (2 / (2 * alpha - 1)))).clamp(min=0).sqrt()
        return (1 + radius * torch.cos(2 * math.pi * v[:, 0])) / 2
    log_x, log_y = log_u / alpha, torch.log1p(-v) / alpha
    total = torch.logaddexp(log_x, log_y)
    taken = total <= 0
    first = taken.to(torch.int8).argmax(1, keepdim=True)
    drawn = (log_x - total).gather(1, first).squeeze(1).exp()
    return torch.where(taken.any(1), drawn, 0.5)
