"""Large-margin softmax: the angle to the given class counts m times."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_ids, upcast
from lightning_perturb.functional._precision import full_precision


def large_margin_logits(features: Tensor, weight: Tensor, target: Tensor, m: int = 4, beta: float = 0.0) -> Tensor:
    """The logits W h with that of the given class lowered to ||w_y|| ||h|| psi(theta_y) (Liu et al., 2016).

    psi(theta) = (-1)^k cos(m theta) - 2 k on [k pi / m, (k + 1) pi / m], and the lowered logit is blended with the
    plain one as (lowered + beta plain) / (1 + beta). The authors start at beta = 100, which falls by 1 % in each step.

    Args:
        features: h, [B, A].
        weight: The classifier's weight W, [C, A]; there is no bias.
        target: Class ids, [B] (int64).
        m: The margin, at least 1 (1 leaves the logits as they are); the authors use 2, 3 and 4.
        beta: The weight of the plain logit, at least 0.

    Returns:
        [B, C]; float32 for half-precision features.

    Raises:
        ValueError: If m or beta is outside its range or the shapes or dtypes do not fit.
    """
    if m < 1:
        raise ValueError(f"m={m!r} must be at least 1.")
    check_positive("beta", beta, zero=True)
    if features.ndim != 2 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and weight of {tuple(weight.shape)} must be [B, A] and [C, A]."
        )
    check_ids(target, len(features))
    with full_precision(features):
        features = upcast(features)
        logits = features @ weight.to(features.dtype).t()
    place = target.unsqueeze(1)
    own = logits.gather(1, place).squeeze(1)
    length = (features.norm(dim=1) * weight[target].to(features.dtype).norm(dim=1)).clamp(
        min=torch.finfo(features.dtype).tiny
    )
    cosine = (own / length).clamp(-1, 1)
    with torch.no_grad():
        k = (m * cosine.acos() / math.pi).floor().clamp(max=m - 1)
        sign = 1 - 2 * (k % 2)
    psi = sign * _multiple_angle(cosine, m) - 2 * k
    blended = (length * psi + beta * own) / (1 + beta)
    return logits.scatter(1, place, blended.unsqueeze(1))


def _multiple_angle(cosine: Tensor, m: int) -> Tensor:
    """cos(m theta) as a polynomial in cos(theta), which unlike acos has a derivative at the ends."""
    before, value = torch.ones_like(cosine), cosine
    for _ in range(m - 1):
        before, value = value, 2 * cosine * value - before
    return value
