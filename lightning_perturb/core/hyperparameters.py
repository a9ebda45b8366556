"""Which constructor arguments go into a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, MutableMapping
from types import FrameType
from typing import Any

import numpy as np
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin, _given_hyperparameters
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import Tensor, nn

from lightning_perturb.core.plain import Plain, as_plain

# kept, the rate of a checkpoint would beat one that is typed at resume
_ALWAYS_LEFT_OUT = ("optimizer", "lr_scheduler", "second_scheduler", "meta_optimizer")


def left_out(frame: FrameType) -> list[str]:
    """Names of the arguments that are not saved.

    These are makers of optimizers, live objects, and what a subclass fixes for its parents: given back to the subclass
    at reloading, the latter would come twice. On the command line all arguments are plain data, and a network is kept.

    Args:
        frame: The frame of the base class' ``__init__``.

    Returns:
        Names for ``save_hyperparameters(ignore=...)``.
    """
    if _given_hyperparameters.get() is not None:
        return list(_ALWAYS_LEFT_OUT)
    fixed = set(_arguments(frame)) - _given(frame)
    return [*_ALWAYS_LEFT_OUT, *sorted(fixed | set(live_arguments(frame)))]


def live_arguments(frame: FrameType) -> list[str]:
    """Names of given arguments that are no plain data: networks, functions, objects.

    A checkpoint with them would not open without executing code from the file; they must be given again.

    Args:
        frame: The frame of the base class' ``__init__``.
    """
    if _given_hyperparameters.get() is not None:
        return []
    live = {name for name, value in _arguments(frame).items() if not _plain(value)}
    return sorted(live & _given(frame) - set(_ALWAYS_LEFT_OUT))


def plain_data(hyper_parameters: MutableMapping[str, Any]) -> None:
    """Turns NumPy's numbers and arrays, and :class:`Plain` objects, into plain data, in place."""
    for name, value in list(hyper_parameters.items()):
        hyper_parameters[name] = _python(value)


def _python(value: Any) -> Any:
    if isinstance(value, Plain):
        return _python(as_plain(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if type(value) is dict:
        return {_python(key): _python(item) for key, item in value.items()}
    return type(value)(map(_python, value)) if type(value) in (list, tuple) else value


def _plain(value: Any) -> bool:
    if isinstance(value, Plain):
        return all(map(_plain, value.given))
    if isinstance(value, dict):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, (bool, int, float, str, Tensor, np.generic))


def _arguments(frame: FrameType) -> dict[str, Any]:
    """All arguments of all constructors from the outermost to the base."""
    arguments: dict[str, Any] = {}
    for level in collect_init_args(frame, [], classes=(HyperparametersMixin,)):
        arguments.update(level)
    return arguments


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


def drop_linked(hyperparameters: MutableMapping[str, Any], net: nn.Module) -> None:
    """Takes the number of classes out of a network's saved arguments where the network does not know it.

    The command line links it to the data and writes it down for every network.
    """
    saved = hyperparameters.get("net")
    arguments = saved.get("init_args") if isinstance(saved, Mapping) else None
    if isinstance(arguments, dict) and "num_classes" not in inspect.signature(type(net).__init__).parameters:
        arguments.pop("num_classes", None)
