"""Collectives that are the identity on one process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes in the default group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank in the default group, 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Concatenates tensors along the first dimension over all ranks, in rank order; ranks may hold unequal counts.

    Args:
        *tensors: Tensors ``[B_rank, ...]``, the same first dimension for all of them. Carries no gradient.

    Returns:
        Tensors ``[sum of B_rank, ...]``.
    """
    if world_size() == 1:
        return tensors
    sizes = _sizes(tensors[0])
    return tuple(_gather_padded(t.detach(), sizes) for t in tensors)


def gather_batch(*tensors: Tensor) -> tuple[tuple[Tensor, ...], slice]:
    """:func:`gather_rows`, and which of the rows are this rank's; gradients of all ranks flow back into own rows.

    Args:
        *tensors: As of :func:`gather_rows`; a gradient flows through those that require one, once.

    Returns:
        The tensors of all ranks, and the place of this rank's rows in them.
    """
    if world_size() == 1:
        return tensors, slice(0, len(tensors[0]))
    sizes = _sizes(tensors[0])
    first = sum(sizes[: rank()])
    return tuple(_Gather.apply(t, sizes) for t in tensors), slice(first, first + sizes[rank()])


class _Gather(torch.autograd.Function):
    """The loss of every rank depends on every row; data-parallel training then takes the mean over the ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gather_padded(tensor, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[rank()], None


def _sizes(tensor: Tensor) -> list[int]:
    """Number of rows on every rank."""
    count = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    return [int(c) for c in counts]


def _gather_padded(tensor: Tensor, sizes: list[int]) -> Tensor:
    longest = max(sizes)
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def gather_objects(value: Any) -> list[Any]:
    """The value of every rank, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean over ranks, without gradient; the input is left as it is."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Gives tensors the values that they have on rank 0, in place; one message for each dtype."""
    if world_size() == 1:
        return
    tensors = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group = [tensor.detach() for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.broadcast(flat, 0)
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over ranks, without gradient; the input is left as it is."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total
