"""Hyperparameters of losses that are a number or, where they are learned, a tensor by sample."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_range
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast


def hyperparameter(
    name: str,
    value: float | Tensor,
    like: Tensor,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> Tensor:
    """A number or tensor as a tensor that broadcasts with the losses ``like`` [B], in their dtype.

    Raises:
        ValueError: If a number is outside the interval or a tensor is neither a scalar nor [B].
    """
    if isinstance(value, Tensor):
        if value.ndim and value.shape != like.shape:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)} beside {like.shape[0]} samples. Give a number, a scalar "
                f"tensor or one value per sample, [{like.shape[0]}]."
            )
        return value.to(like.dtype)
    check_range(name, value, low, high, open_low=open_low, open_high=open_high)
    # a number becomes a tensor by a fill on the device, not by a copy that waits for it
    return like.new_full((), value)


def label_log_probability(logits: Tensor, target: Tensor) -> Tensor:
    """log p_y of each sample, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    return -F.cross_entropy(upcast(logits), target, reduction="none")
