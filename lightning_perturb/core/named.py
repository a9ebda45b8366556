"""Functions given by name, so that a configuration can hold them and a checkpoint stays plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any


def named_function(argument: str, name: str, known: Iterable[Callable[..., Any]]) -> Callable[..., Any]:
    """The function of a name.

    Args:
        argument: Name of the argument that holds the name, for the message.
        name: Name of a known function, or the import path of any (``my_module.my_function``).
        known: The known functions.

    Raises:
        ValueError: If there is no such function.
    """
    names = {function.__name__: function for function in known}
    if name in names:
        return names[name]
    module, _, attribute = name.rpartition(".")
    choices = f"Choose from {', '.join(names)}, or give the import path of a function of your own"
    if not module:
        raise ValueError(f"{argument} names {name!r}, which is unknown. {choices} (my_module.my_function).")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{argument} names {name!r}, which cannot be imported: {error}. {choices}.") from error
    if not callable(found):
        raise ValueError(f"{argument} names {name!r}, which is {found!r} and no function. {choices}.")
    return found  # type: ignore[no-any-return]
