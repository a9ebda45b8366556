"""DisturbLabel: labels redrawn at random in every iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_ids


def disturb_label(target: Tensor, uniform: Tensor, num_classes: int, alpha: float = 0.2) -> Tensor:
    """Labels of which a share alpha is redrawn uniformly from all classes (Xie et al., 2016).

    So a label stays with probability 1 - alpha (C - 1) / C and becomes each other class with alpha / C.

    Args:
        target: Class ids, [B] (int64).
        uniform: Uniform numbers in [0, 1), [B], drawn anew for every iteration.
        num_classes: C.
        alpha: The share redrawn, from 0 to 1.

    Returns:
        Class ids, [B].

    Raises:
        ValueError: If alpha is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_rate("alpha", alpha)
    check_ids(target)
    if uniform.shape != target.shape:
        raise ValueError(f"uniform has the shape {tuple(uniform.shape)} beside {len(target)} labels; give one each.")
    if alpha == 0:
        return target.clone()
    # below alpha the same number, stretched to [0, 1), is uniform again and draws the class
    drawn = (uniform / alpha * num_classes).long().clamp(max=num_classes - 1)
    return torch.where(uniform < alpha, drawn, target)
