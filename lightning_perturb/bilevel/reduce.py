"""Averages over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def mean_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all ranks of the default process group, in one message for each dtype.

    Args:
        tensors: of the same shapes, in the same order on all ranks. They stay as they are.

    Returns:
        New tensors; those given, where no process group is open.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(tensors)
    means = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        flat = torch.cat([tensors[i].detach().flatten() for i in places])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for i, part in zip(places, torch.split(flat, [tensors[i].numel() for i in places]), strict=True):
            means[i] = part.view_as(tensors[i])
    return means
