"""The check of multi-label targets."""

from __future__ import annotations

from torch import Tensor


def check_multi_hot(logits: Tensor, target: Tensor) -> None:
    """Raises a ValueError unless logits and target are both [B, C]."""
    if logits.ndim != 2 or target.shape != logits.shape:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} and target of shape {tuple(target.shape)} must both be [B, C]. "
            "A multi-label target holds one 0 or 1 for every class."
        )
