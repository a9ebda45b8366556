"""Files that a noise reads: their names and their absence."""

from collections.abc import Collection
from pathlib import Path


def suffix_of(argument: str, name: str, known: Collection[str]) -> str:
    """Returns the lower-case ending of a file name, or raises a ValueError unless it is among ``known``."""
    suffix = Path(name).suffix.lower()
    if suffix not in known:
        raise ValueError(f"{argument}={name!r} ends in {suffix or 'nothing'!r}. Known endings: {', '.join(known)}.")
    return suffix


def existing(argument: str, name: str, content: str) -> Path:
    """Returns the path of a file, or raises a FileNotFoundError that says what to put there."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{argument}={name!r}: there is no such file ({path.absolute()}). Put there {content}.")
    return path
