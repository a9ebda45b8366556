"""The check of class counts."""

from __future__ import annotations

from torch import Tensor


def check_counts(counts: Tensor) -> None:
    """Raises a ValueError, with the classes concerned, unless counts are [C] and all above 0."""
    if counts.ndim != 1:
        raise ValueError(f"counts have the shape {tuple(counts.shape)}. Give one number per class, [C].")
    empty = (counts <= 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"counts are not above 0 for the classes {empty}. Every class needs at least one sample.")
