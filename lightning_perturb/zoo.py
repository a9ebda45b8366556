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
from lightning_perturb.lattice import CELL_DIRECTIONS, no_meaning

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
    """The cells with no named method here: target, granularity, inference, the paper's methods, and how to train it."""
    ours = named_places()
    rows = []
    for place in product(TARGETS, GRANULARITIES, INFERENCES):
        if place in ours:
            continue
        target, granularity, inference = place
        reasons = {way: no_meaning(target, granularity, inference, way) for way in CELL_DIRECTIONS}
        legal = [way for way, reason in reasons.items() if reason is None]
        cell = f"{'Meta' if inference == 'meta' else ''}Perturb with {inference.capitalize()}"
        how = f"{cell}, {', '.join(legal)}" if legal else f"no meaning: {next(iter(reasons.values()))}"
        rows.append([*place, TABLE_1.get(place, "-"), how])
    return rows


def named_places() -> dict[Place, list[str]]:
    """The named methods and the examples of each (target, granularity, inference)."""
    places: dict[Place, list[str]] = {}
    for name, coordinates in _named():
        for place in product(coordinates.target, coordinates.granularity, coordinates.inference):
            places.setdefault(place, []).append(name)
    return places


def _methods() -> list[type[PerturbationModule]]:
    return [cls for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")]


def _named() -> Iterator[tuple[str, Coordinates]]:
    for cls in sorted(_methods(), key=lambda c: c.__name__):
        # these stand everywhere
        if not issubclass(cls, lightning_perturb.methods.Perturb):
            yield cls.__name__, cls.coordinates
    for module in pkgutil.iter_modules(lightning_perturb.examples.__path__):
        example = import_module(f"lightning_perturb.examples.{module.name}")
        yield f"examples.{module.name}", example.COORDINATES


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], section: int) -> Table:
    """A table with a line where the entry of a column changes."""
    table = Table(title=title, caption="A method that mixes stands at every combination of its words.")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < section)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(*(escape(cell) for cell in row), end_section=after is not None and after[0] != row[0])
    return table


def print_zoo(words: Sequence[str] = ()) -> None:
    """Prints the methods and the taxonomy's Table 1.

    Args:
        words: Further words of the command line: none, ``--table1`` (that table alone), ``--empty`` (the cells with no
            named method), and with any of them ``--markdown``.

    Raises:
        SystemExit: If there are other words.
    """
    asked = [word for word in words if word != "--markdown"]
    if len(asked) > 1 or not set(asked) <= {"--table1", "--empty"} or len(words) > len(asked) + 1:
        raise SystemExit(
            f"lightning-perturb zoo takes --table1, --empty or neither, and --markdown, got: {' '.join(words)}"
        )
    table_1 = ["target", "granularity", *INFERENCES]
    empty = ["target", "granularity", "inference", "in the paper's Table 1", "how to train it"]
    if "--markdown" in words:
        rows = {"--table1": [table_1, *table_1_rows()], "--empty": [empty, *empty_rows()]}
        print(_markdown(rows[asked[0]]) if asked else zoo_markdown())
        return
    console = Console()
    # a pipe has no width of its own: the table must not be cut to 80 columns there
    console = Console(width=None if console.is_terminal else 200)
    if "--empty" in asked:
        console.print(_table("Cells of the taxonomy with no named method here", empty, empty_rows(), 3))
        return
    if not asked:
        console.print(zoo_table())
    title = "Table 1 of the taxonomy: the paper's methods, and after + those of this package"
    console.print(_table(title, table_1, table_1_rows(), 2))
