"""Objects that a checkpoint holds as plain data: the name of their class, and what they were made with."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any


class Plain:
    """An object that is made of plain data, and that a checkpoint therefore holds without any code.

    It remembers its arguments: numbers, words, lists of them, and objects of this kind. :func:`as_plain` writes them
    down, :func:`from_plain` makes the object again.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Notes the arguments."""
        made = super().__new__(cls)
        made._given = args, kwargs
        return made

    # without it, the command line would take any argument for a class that has none
    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        args, kwargs = self.given
        words = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(words)})"

    @property
    def given(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments: those without a name, and those with one."""
        args, kwargs = self._given
        _, *parameters = inspect.signature(type(self).__init__).parameters.values()
        if any(one.kind is one.VAR_POSITIONAL for one in parameters):
            return list(args), dict(kwargs)
        return [], {**{one.name: value for one, value in zip(parameters, args, strict=False)}, **kwargs}


def as_plain(value: Any) -> Any:
    """The value with each :class:`Plain` in it as ``{"class_path": ..., "init_args": {...}}``."""
    if isinstance(value, Plain):
        args, kwargs = value.given
        cls = type(value)
        written = {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": as_plain(kwargs)}
        return written | ({"args": as_plain(args)} if args else {})
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    return type(value)(map(as_plain, value)) if type(value) in (list, tuple) else value


def from_plain(value: Any) -> Any:
    """The value with the objects that :func:`as_plain` wrote down. Nothing is imported, no other class is made.

    Raises:
        ValueError: If a class is not known, or takes other arguments.
    """
    if isinstance(value, Mapping):
        made = {key: from_plain(item) for key, item in value.items()}
        return _made(made) if "class_path" in value else made
    return type(value)(map(from_plain, value)) if type(value) in (list, tuple) else value


def _made(written: dict[str, Any]) -> Plain:
    name = written["class_path"]
    cls = _known(name)
    if cls is None:
        raise ValueError(
            f"class_path={name!r} is not imported, or no class that is saved as data. Import its module first."
        )
    try:
        return cls(*written.get("args", ()), **written.get("init_args", {}))
    except TypeError as error:
        raise ValueError(f"class_path={name!r} does not take what was saved: {error}.") from error


def _known(name: str) -> type[Plain] | None:
    for cls in _subclasses(Plain):
        if name == f"{cls.__module__}.{cls.__qualname__}":
            return cls
    # a class that has moved is still found where it was, or where a package offers it
    module, _, last = name.rpartition(".")
    found = getattr(sys.modules.get(module), last, None)
    return found if isinstance(found, type) and issubclass(found, Plain) else None


def _subclasses(cls: type[Plain]) -> Iterator[type[Plain]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
