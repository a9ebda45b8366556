"""What a measurement of step times tells: its rows, their files and the Markdown table."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speed_contenders import AGAIN, PLAIN
from speed_probes import Passes

LIMIT = 1.05


@dataclass
class Row:
    """What is told of a method.

    Attributes:
        name: Method and setting.
        target: What it perturbs.
        passes: Its passes in one step.
        step_ms: Median step.
        ratio: Median ratio to cross-entropy's step in the same round, with quartiles.
        floor_ms: Median floor.
        of_floor: Median ratio to the floor in the same round.
        memory_mib: Peak memory of the first steps over what was held before.
    """

    name: str
    target: str
    passes: Passes
    step_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    floor_ms: float
    of_floor: float
    memory_mib: float | None = None

    @property
    def limited(self) -> float:
        """The ratio that the limit is about: to cross-entropy at equal passes, else to the floor."""
        return self.ratio if self.passes.plain else self.of_floor

    @property
    def flat(self) -> dict[str, Any]:
        """One line of a CSV file."""
        row = asdict(self)
        passes = row.pop("passes")
        return {**row, **{f"passes_{name}": value for name, value in passes.items()}, "limited": self.limited}


def table(about: dict[str, Any], rows: list[Row]) -> str:
    """The Markdown of a measurement."""
    layout = ", channels_last" if about["channels_last"] else ""
    titles = (
        "method",
        "perturbs",
        "passes",
        "step ms",
        "x CE",
        "quartiles",
        "floor ms",
        "x floor",
        "limit",
        "peak MiB",
    )
    lines = [
        f"{about['net']}, batch {about['batch']}, precision {about['precision']}{layout}, on {about['device']}; "
        f"median of {about['rounds']} rounds; torch {about['versions']['torch']}, commit {about['commit']}.",
        "",
        f"| {' | '.join(titles)} |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        passes = row.passes
        counted_passes = f"{passes.forward:g} F + {passes.training:g} W"
        if passes.attack:
            counted_passes = f"{passes.forward:.3g} F + {passes.attack:.3g} X + {passes.training:g} W"
        of = "CE" if passes.plain else "floor"
        verdict = "met" if row.limited <= LIMIT else "MISSED"
        limit = "–" if row.name in (PLAIN, AGAIN) else f"{LIMIT} of {of}: {verdict}"
        cells = (
            row.name,
            row.target,
            f"{counted_passes} = {passes.units:.3g}",
            f"{row.step_ms:.1f}",
            f"{row.ratio:.3f}",
            f"{row.ratio_low:.3f}–{row.ratio_high:.3f}",
            f"{row.floor_ms:.1f}",
            f"{row.of_floor:.3f}",
            limit,
            "–" if row.memory_mib is None else f"{row.memory_mib:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def store(path: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """Writes ``.json`` (everything) and ``.csv`` (the rows)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"about": about, "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0].flat))
        writer.writeheader()
        writer.writerows(row.flat for row in rows)


def stored(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Reads what :func:`store` wrote."""
    path = path.with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Measure first, without --only-table.")
    read = json.loads(path.read_text(encoding="utf-8"))
    return read["about"], [Row(**{**row, "passes": Passes(**row["passes"])}) for row in read["rows"]]
