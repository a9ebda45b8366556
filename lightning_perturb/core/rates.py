"""Learning rates that change inside a training beside their schedule."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

# the rates that schedulers keep in an optimizer's groups
_RATES = ("lr", "initial_lr", "max_lr", "min_lr")


def scale_rates(optimizer: Optimizer, schedulers: Sequence[Any], factor: float) -> None:
    """Multiplies the present rate of an optimizer, and all that its schedulers will give it.

    Args:
        optimizer: The optimizer.
        schedulers: Its schedulers.
        factor: The factor, above 0.
    """
    for group in optimizer.param_groups:
        group.update({name: group[name] * factor for name in _RATES if name in group})
    for scheduler in schedulers:
        _scale(scheduler, factor)


def _scale(scheduler: Any, factor: float) -> None:
    if hasattr(scheduler, "base_lrs"):
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
    if hasattr(scheduler, "eta_min"):
        scheduler.eta_min = scheduler.eta_min * factor
    # of schedulers that follow each other, or multiply
    for part in getattr(scheduler, "_schedulers", ()):
        _scale(part, factor)
