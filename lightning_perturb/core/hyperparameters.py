"""Which constructor arguments go into a checkpoint."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any

from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin, _given_hyperparameters
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import nn

# kept, the rate of a checkpoint would beat one that is typed at resume
_ALWAYS_LEFT_OUT = ("optimizer", "lr_scheduler")


def left_out(frame: FrameType) -> list[str]:
    """Names of the arguments that are not saved.

    These are makers of optimizers, live networks, and what a subclass fixes for its parents: given back to the subclass
    at reloading, the latter would come twice. On the command line all arguments are plain data, and a network is kept.

    Args:
        frame: The frame of the base class' ``__init__``.

    Returns:
        Names for ``save_hyperparameters(ignore=...)``.
    """
    if _given_hyperparameters.get() is not None:
        return list(_ALWAYS_LEFT_OUT)
    arguments: dict[str, Any] = {}
    for level in collect_init_args(frame, [], classes=(HyperparametersMixin,)):
        arguments.update(level)
    live = {name for name, value in arguments.items() if isinstance(value, nn.Module)}
    return [*_ALWAYS_LEFT_OUT, *sorted(live | (set(arguments) - _given(frame)))]


def _given(frame: FrameType) -> set[str]:
    """Names that the outermost constructor takes, by itself or through ``*args`` and ``**kwargs``."""
    positional = [name for name in inspect.getargvalues(frame).args if name != "self"]
    outermost, owner = frame, frame.f_locals["self"]
    while (outer := outermost.f_back) is not None and outer.f_locals.get("self") is owner:
        if outer.f_code.co_name != "__init__":
            break
        outermost = outer
    info = inspect.getargvalues(outermost)
    through = info.locals[info.varargs] if info.varargs else ()
    keywords = info.locals[info.keywords] if info.keywords else {}
    # methods pass positional arguments on to the base as they are
    return {*info.args, *(name for name, _ in zip(positional, through, strict=False)), *keywords} - {"self"}
