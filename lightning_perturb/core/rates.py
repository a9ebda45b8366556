"""Learning rates, and other options of an optimizer, that change inside a training beside their schedule."""

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


def options_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of an optimizer's groups as they are: rate, momentum, and what its schedulers keep there."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def put_options(optimizer: Optimizer, options: list[dict[str, Any]]) -> None:
    """Gives an optimizer's groups these options and no others.

    Args:
        optimizer: The optimizer.
        options: Of :func:`options_of`, at an earlier moment.
    """
    for group, wanted in zip(optimizer.param_groups, options, strict=True):
        for name in group.keys() - wanted.keys() - {"params"}:
            del group[name]
        group.update(wanted)
