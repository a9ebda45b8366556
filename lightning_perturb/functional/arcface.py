"""ArcFace: an additive margin on the angle to the given class [tax 48, 49]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._hyperparameters import hyperparameter


def arcface_logits(
    cosine: Tensor, target: Tensor, margin: float | Tensor = 0.5, scale: float | Tensor = 64.0
) -> Tensor:
    """s cos(theta_y + m) for the given class and s cos(theta_c) for the others [tax 48, as a cross-entropy].

    Beyond theta_y + m = pi, where the cosine would rise again, it goes on as cos(theta_y) - m sin(m), so that the
    logit falls with the angle throughout (as the authors' code does).

    Args:
        cosine: cos(theta), [B, C], see ``cosine_logits``.
        target: Class ids, [B] (int64).
        margin: m in radians, from 0 to pi / 2; a number, or a tensor (scalar or [B]) such as the margins of the
            samples' groups [tax 49], whose values are not checked and which receives gradients.
        scale: s, above 0, 64 as in common use; or ||w_y|| ||h_i|| by sample, [B], as the equation has it.

    Returns:
        [B, C]; float32 for half-precision cosines.

    Raises:
        ValueError: If a number is outside its range or the shapes or dtypes do not fit.
    """
    check_logits(cosine)
    check_ids(target, cosine.shape[0])
    cosine = upcast(cosine)
    place = target.unsqueeze(1)
    own = cosine.gather(1, place).squeeze(1)
    margin = hyperparameter("margin", margin, own, 0.0, math.pi / 2)
    # the derivative of the root is infinite where the angle is 0
    sine = (1 - own.square()).clamp(min=torch.finfo(own.dtype).eps).sqrt()
    inside = own > -margin.cos()
    shifted = torch.where(inside, own * margin.cos() - sine * margin.sin(), own - margin * margin.sin())
    logits = cosine.scatter(1, place, shifted.unsqueeze(1))
    return logits * hyperparameter("scale", scale, own, open_low=True, open_high=True).view(-1, 1)
