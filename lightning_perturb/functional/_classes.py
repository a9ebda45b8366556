"""The classes that occur in a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def present_classes(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ids of the K classes in a batch [K], ascending, each sample's place among them [B], and their sizes [K]."""
    present: Tensor
    place: Tensor
    sizes: Tensor
    present, place, sizes = torch.unique(target, return_inverse=True, return_counts=True)
    return present, place, sizes
