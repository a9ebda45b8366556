"""Matrix products that mixed precision must not round."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> torch.autocast:
    """A context in which products on the device of ``values`` keep their dtype, inside autocast too."""
    return torch.autocast(values.device.type, enabled=False)
