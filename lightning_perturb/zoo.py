"""The methods by their place in the taxonomy, printed from the classes themselves."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lightning_perturb.examples
import lightning_perturb.methods
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.core.taxonomy import GRANULARITIES, INFERENCES, TARGETS, Coordinates
from lightning_perturb.lattice import CELL_DIRECTIONS, cells, no_meaning
from lightning_perturb.lattice.forms import FORMS, NO_FORM

_COLUMNS = ["method", "target", "direction", "inference", "granularity", "what it does"]

Place = tuple[str, str, str]

#: Table 1 of the taxonomy by (target, granularity, inference); where the print lost empty columns, as the text says
TABLE_1: dict[Place, str] = {
    ("feature", "sample", "prior"): "Mixup",
    ("feature", "sample", "regularization"): "RC, RegPert, RR, RNICP, DEFENSE_GEN",
    ("feature", "category", "regularization"): "MRFL",
    ("feature", "corpus", "regularization"): "PD-UA",
    ("feature", "sample", "meta"): "MetaMixUp",
    ("feature", "corpus", "meta"): "MAT",
    ("feature", "sample", "adversarial"): "AT",
    ("feature", "category", "adversarial"): "C-UAT",
    ("feature", "corpus", "adversarial"): "UAT",
    ("logit", "sample", "prior"): "ZLA",
    ("logit", "category", "prior"): "ISDA, LDAM",
    ("logit", "corpus", "prior"): "LA",
    ("logit", "corpus", "hyperparameter"): "ArcFace",
    ("logit", "category", "regularization"): "AFL",
    ("logit", "category", "meta"): "MetaSAug, Balanced loss, Meta LA",
    ("logit", "corpus", "meta"): "AutoBalance",
    ("label", "sample", "prior"): "LS, Bootstrapping loss, D2L, Mixup",
    ("label", "category", "prior"): "OLS",
    ("label", "sample", "regularization"): "RLR, RLASSO",
    ("label", "sample", "meta"): "MetaMixUp, MSLC",
    ("label", "sample", "adversarial"): "ALS",
    ("loss", "sample", "prior"): "KD, DSL, DAC, PolyLoss",
    ("loss", "corpus", "hyperparameter"): "ν-SVM",
    ("loss", "sample", "regularization"): "SVM",
    ("loss", "sample", "meta"): "MetaDistil",
    ("loss", "sample", "adversarial"): "AKD",
}


def zoo_rows() -> list[list[str]]:
    """One row for each method: name, target, direction, inference, granularity, and what it is."""
    order = {target: place for place, target in enumerate(TARGETS)}
    rows = []
    for cls in sorted(_methods(), key=lambda c: ([order[t] for t in c.coordinates.target], c.__name__)):
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
    return _markdown([_COLUMNS, *zoo_rows()])


def table_1_rows() -> list[list[str]]:
    """The taxonomy's Table 1 with ours in it: a row for each target and granularity, a column for each inference.

    An entry has the paper's names, and after a plus sign the methods and examples of this package.
    """
    ours = named_places()
    rows = []
    for target, granularity in product(TARGETS, GRANULARITIES):
        row = [target, granularity]
        for inference in INFERENCES:
            place = (target, granularity, inference)
            named = ", ".join(ours.get(place, []))
            row.append(" ".join(part for part in (TABLE_1.get(place, ""), f"+ {named}" if named else "") if part))
        rows.append(row)
    return rows


def empty_rows() -> list[list[str]]:
    """The cells with no named method here: place, the paper's methods, and by what to train it."""
    ours = named_places()
    rows = []
    for place in product(TARGETS, GRANULARITIES, INFERENCES):
        if place in ours:
            continue
        target, granularity, inference = place
        legal = [way for way in CELL_DIRECTIONS if no_meaning(target, granularity, inference, way) is None]
        method = "MetaPerturb" if inference == "meta" else "Perturb"
        how = [method, inference.capitalize(), ", ".join(legal)] if legal else ["no meaning", "-", "-"]
        rows.append([*place, TABLE_1.get(place, "-"), *how])
    return rows


def meaningless_rows() -> list[list[str]]:
    """The cells without a meaning: target, granularity, inference, directions, and why."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for *place, direction in cells():
        target, granularity, inference = place
        if (reason := no_meaning(target, granularity, inference, direction)) is not None:
            found.setdefault((target, granularity, inference, reason), []).append(direction)
    return [[*place, ", ".join(ways), why] for (*place, why), ways in found.items()]


def cell_rows() -> list[list[str]]:
    """The methods that are lists of cells, and those that are not: name, the cells, or why there are none."""
    names = sorted(cls.__name__ for cls in _methods() if not issubclass(cls, lightning_perturb.methods.Perturb))
    rows = [[name, FORMS[name], "-"] for name in names if name in FORMS]
    return rows + [[name, "-", NO_FORM[name]] for name in names if name in NO_FORM]


def named_places() -> dict[Place, list[str]]:
    """The named methods and the examples of each (target, granularity, inference)."""
    places: dict[Place, list[str]] = {}
    for name, stands in _named():
        for place in stands:
            places.setdefault(place, []).append(name)
    return places


def places_of(cls: type[PerturbationModule]) -> list[Place]:
    """Where a method stands: at the places of the methods that it is made of, or at every combination of its words."""
    own = cls.coordinates
    words = _combinations(own)
    parts = [base for base in cls.__bases__ if base in _methods()]
    inherited = {place for base in parts for place in places_of(base)}
    said = [set(column) for column in zip(*inherited, strict=True)]
    made_of_them = said == [set(own.target), set(own.granularity), set(own.inference)]
    return [place for place in words if place in inherited] if len(parts) > 1 and made_of_them else words


def _methods() -> list[type[PerturbationModule]]:
    return [cls for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")]


def _combinations(coordinates: Coordinates) -> list[Place]:
    return list(product(coordinates.target, coordinates.granularity, coordinates.inference))


def _named() -> Iterator[tuple[str, list[Place]]]:
    for cls in sorted(_methods(), key=lambda c: c.__name__):
        # these stand everywhere
        if not issubclass(cls, lightning_perturb.methods.Perturb):
            yield cls.__name__, places_of(cls)
    for module in pkgutil.iter_modules(lightning_perturb.examples.__path__):
        example = import_module(f"lightning_perturb.examples.{module.name}")
        yield f"examples.{module.name}", _combinations(example.COORDINATES)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], section: int, caption: str | None = None
) -> Table:
    """A table with a line where the entry of the first column changes, whose first columns are not wrapped."""
    table = Table(title=title, caption=caption)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < section)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(*(escape(cell) for cell in row), end_section=after is not None and after[0] != row[0])
    return table


_EMPTY = "Cells of the taxonomy with no named method here"
_CAPTION_EMPTY = """To train one, list it in a file, and give that with -c after the file of your data:
model: {class_path: Perturb, init_args: {perturbations: [
  {class_path: Prior, init_args: {target: label, granularity: category, direction: mixed}}]}}
See configs/methods/perturb.yaml; MetaPerturb learns on clean samples and has configs/methods/meta_perturb.yaml."""
_WITHOUT = "Cells without a meaning"
_CELLS = "Named methods as cells of Perturb, and why some are none"
_TABLE_1 = "Table 1 of the taxonomy: the paper's methods, and after + those of this package"
_CAPTION_TABLE_1 = (
    "A method that mixes stands at every combination of its words, one that is made of others where these stand."
)


def print_zoo(words: Sequence[str] = ()) -> None:
    """Prints the methods and the taxonomy's Table 1.

    Args:
        words: Further words of the command line: none, ``--table1`` (that table alone), ``--empty`` (the cells with no
            named method, and those without a meaning), ``--cells`` (which methods are lists of cells), and with any of
            them ``--markdown``.

    Raises:
        SystemExit: If there are other words.
    """
    asked = [word for word in words if word != "--markdown"]
    if len(asked) > 1 or not set(asked) <= {"--table1", "--empty", "--cells"} or len(words) > len(asked) + 1:
        raise SystemExit(
            "lightning-perturb zoo takes --table1, --empty, --cells or none of them, and --markdown, got: "
            f"{' '.join(words)}"
        )
    place = ["target", "granularity", "inference"]
    table_1 = ["target", "granularity", *INFERENCES], table_1_rows
    empty = [*place, "in the paper's Table 1", "method", "cell", "directions"], empty_rows
    without = [*place, "directions", "why"], meaningless_rows
    as_cells = ["method", "cells", "why none"], cell_rows
    if "--markdown" in words:
        shown = {"--table1": [table_1], "--empty": [empty, without], "--cells": [as_cells]}
        parts = [_markdown([columns, *rows()]) for columns, rows in shown[asked[0]]] if asked else [zoo_markdown()]
        print("\n\n".join(parts))
        return
    console = Console()
    # a pipe has no width of its own: the table must not be cut to 80 columns there
    console = Console(width=None if console.is_terminal else 200)
    if "--empty" in asked:
        console.print(_table(_EMPTY, empty[0], empty_rows(), 3))
        console.print(escape(_CAPTION_EMPTY), soft_wrap=True)
        console.print(_table(_WITHOUT, without[0], meaningless_rows(), 3))
        return
    if "--cells" in asked:
        table = Table(title=_CELLS)
        for number, column in enumerate(as_cells[0]):
            table.add_column(column, no_wrap=number == 0)
        for row in cell_rows():
            table.add_row(*(escape(part) for part in row))
        console.print(table)
        return
    if not asked:
        console.print(zoo_table())
    console.print(_table(_TABLE_1, table_1[0], table_1_rows(), 2, _CAPTION_TABLE_1))
