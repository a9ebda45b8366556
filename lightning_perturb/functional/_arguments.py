"""What every function here does to its arguments: cheap checks (never of tensor values) and the upcast."""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(values: Tensor) -> Tensor:
    """Half-precision values as float32, others as they are: exp and log of bf16 lose the small losses."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def column(value: float | Tensor) -> float | Tensor:
    """A per-sample value of shape [B] as [B, 1], so that it scales the rows of [B, C]; a scalar stays as it is."""
    return value.unsqueeze(1) if isinstance(value, Tensor) and value.ndim == 1 else value


def check_logits(logits: Tensor) -> None:
    """Raises a ValueError unless logits have the shape [B, C] with at least two classes."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits have the shape {tuple(logits.shape)}. Give [B, C] with C of at least 2.")


def check_ids(target: Tensor, batch: int | None = None) -> None:
    """Raises a ValueError unless target holds class ids of shape [B] and dtype int64."""
    if target.ndim != 1 or (batch is not None and target.shape[0] != batch):
        expected = "[B]" if batch is None else f"[{batch}]"
        raise ValueError(f"target has the shape {tuple(target.shape)} where class ids of shape {expected} are needed.")
    if target.dtype != torch.int64:
        raise ValueError(f"target has the dtype {target.dtype} where class ids are needed. Convert it with .long().")


def check_target(target: Tensor, batch: int, num_classes: int) -> None:
    """Raises a ValueError unless target holds class ids [B] or soft labels [B, C]."""
    if target.ndim < 2:
        check_ids(target, batch)
        return
    if target.shape != (batch, num_classes):
        raise ValueError(
            f"target has the shape {tuple(target.shape)} beside logits of [{batch}, {num_classes}]. "
            f"Give class ids of shape [{batch}] or soft labels of shape [{batch}, {num_classes}]."
        )
    if not target.is_floating_point():
        raise ValueError(
            f"target has the shape of soft labels but the dtype {target.dtype}. Convert soft labels with .float(); "
            "for labels of several classes at once use the multi-label loss."
        )
