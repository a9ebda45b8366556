"""The methods by their place in the taxonomy, printed from the classes themselves."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lightning_perturb.methods  # noqa: F401 - defines the classes that are listed
from lightning_perturb.core.load import subclasses
from lightning_perturb.core.taxonomy import TARGETS

_COLUMNS = ["method", "target", "direction", "inference", "granularity", "what it does"]


def zoo_rows() -> list[list[str]]:
    """One row for each method: name, target, direction, inference, granularity, and what it is."""
    order = {target: place for place, target in enumerate(TARGETS)}
    methods = [cls for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")]
    rows = []
    for cls in sorted(methods, key=lambda c: ([order[t] for t in c.coordinates.target], c.__name__)):
        place = cls.coordinates
        words = [", ".join(part) or "-" for part in (place.target, place.direction, place.inference, place.granularity)]
        rows.append([cls.__name__, *words, (inspect.getdoc(cls) or "").split("\n", 1)[0]])
    return rows


def zoo_table() -> Table:
    """The rows as a table for the terminal."""
    table = Table(title="Methods by their coordinates in the taxonomy of learning with perturbation")
    for column in _COLUMNS:
        table.add_column(column, no_wrap=column == "method")
    for row in zoo_rows():
        table.add_row(*(escape(cell) for cell in row))
    return table


def zoo_markdown() -> str:
    """The rows as a Markdown table."""
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *zoo_rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_zoo(words: Sequence[str] = ()) -> None:
    """Prints the methods.

    Args:
        words: Further words of the command line: none, or ``--markdown``.

    Raises:
        SystemExit: If there are other words.
    """
    if list(words) == ["--markdown"]:
        print(zoo_markdown())
        return
    if words:
        raise SystemExit(f"lightning-perturb zoo takes --markdown or nothing, got: {' '.join(words)}")
    console = Console()
    # a pipe has no width of its own: the table must not be cut to 80 columns there
    Console(width=None if console.is_terminal else 200).print(zoo_table())
