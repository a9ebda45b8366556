"""Logits in what a network returns."""

from __future__ import annotations

from typing import Any


def logits_in(output: Any) -> Any:
    """The logits of a network's output: a tensor, a tuple or list that starts with it, or an object's ``.logits``."""
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, (tuple, list)) else output
