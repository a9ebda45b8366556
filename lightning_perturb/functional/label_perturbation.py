"""The label perturbation that bootstrapping, label smoothing and label correction share [tax 37]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_target, column


def perturb_label(target: Tensor, prediction: Tensor, weight: float | Tensor) -> Tensor:
    """The perturbed label y + weight (y' - y) [tax 37].

    Args:
        target: The given labels y: class ids [B] (int64) or soft labels [B, C].
        prediction: y', another distribution over the classes, [B, C].
        weight: How far to go, from 0 (the given label) to 1; a number, or a tensor (scalar or [B]), whose values are
            not checked.

    Returns:
        Soft labels, [B, C], in the dtype of prediction; gradients flow into prediction and weight.

    Raises:
        ValueError: If weight is outside 0..1 or the shapes or dtypes do not fit.
    """
    if not isinstance(weight, Tensor):
        check_rate("weight", weight)
    if prediction.ndim != 2:
        raise ValueError(f"prediction has the shape {tuple(prediction.shape)}. Give [B, C].")
    check_target(target, *prediction.shape)
    if target.ndim == 2:
        return torch.lerp(target.to(prediction.dtype), prediction, column(weight))
    mixed = prediction * column(weight)
    # a number becomes a tensor by a fill on the device, not by a copy that waits for it
    kept = (1 - weight).to(mixed.dtype) if isinstance(weight, Tensor) else mixed.new_full((), 1 - weight)
    return mixed.scatter_add_(1, target.unsqueeze(1), kept.expand(len(target)).unsqueeze(1))
