"""Tables and choices from the results of a grid."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from accuracy_grid import Grid, Run, Spec
from accuracy_pool import done_runs

# below this share of memorised noise a comparison of last epochs says nothing about noise
_MEMORISED = 0.8
_LAST = 5
_LOSS = "/loss"
# what is kept is the share that is right
_ERRORS = {"/error": "/acc", "/top5_error": "/top5"}
_NAMES = {
    "acc": "Test accuracy",
    "robust_acc": "Test accuracy under attack",
    "error": "Test error",
    "top5": "Test top-5 accuracy",
    "top5_error": "Test top-5 error",
    "macro_precision": "Test precision, mean over classes",
    "mAP": "Test mAP",
    "worst_group_acc": "Test accuracy, worst group",
    "mean_group_acc": "Test accuracy, mean over groups",
    "train_weighted_acc": "Test accuracy, groups as in training",
}


@dataclass
class Results:
    """The results of a grid by (row, column), in the order of the seeds."""

    grid: Grid
    done: dict[tuple[str, str], list[Spec]] = field(default_factory=dict)

    def curves(self, row: str, column: str, name: str) -> list[list[float | None]]:
        """One number by epoch of every seed whose training did not break off."""
        results = [result["curve"] for result in self.done.get((row, column), []) if not result["error"]]
        for error, right in _ERRORS.items():
            if name.endswith(error):
                right = name.removesuffix(error) + right
                return [_complement(curve[right]) for curve in results if right in curve]
        return [curve[name] for curve in results if name in curve]

    def all(self) -> list[Spec]:
        """Every result."""
        return [result for results in self.done.values() for result in results]

    @property
    def seeds(self) -> int:
        """Seeds of a full cell."""
        return len({run.seed for run in self.grid.runs})


def read_results(grid: Grid, results: Path) -> Results:
    """Reads what is done of a grid, also where another grid's run was the same."""
    files = done_runs(results)
    read = Results(grid)
    for run in grid.runs:
        if run.key in files:
            result = json.loads(files[run.key].read_text(encoding="utf-8"))
            read.done.setdefault((run.row, run.column), []).append(result)
    return read


# numbers of a run -----------------------------------------------------------------------------------------------------


def last(curve: Iterable[float | None]) -> float:
    """The last number."""
    return _numbers(curve)[-1]


def best(curve: Iterable[float | None], falls: bool = False) -> float:
    """The largest number, or the smallest.

    It is chosen on the test set, as the released code does, so it is a bound and no result.
    """
    return (min if falls else max)(_numbers(curve))


def mean_of_last(curve: Iterable[float | None]) -> float:
    """The mean of the last five tested epochs."""
    return statistics.fmean(_numbers(curve)[-_LAST:])


def _mean(values: Iterable[float | None]) -> float:
    return statistics.fmean(_numbers(values))


def _falls(name: str) -> bool:
    """Whether less is better."""
    return name.endswith((*_ERRORS, _LOSS))


def _complement(curve: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else 1 - value for value in curve]


def _numbers(curve: Iterable[float | None]) -> list[float]:
    return [value for value in curve if value is not None]


# the table ------------------------------------------------------------------------------------------------------------


def table(read: Results, figures: dict[str, str] | None = None) -> str:
    """The Markdown of a grid: accuracy of the last, best and last five tested epochs, and the share memorised.

    Args:
        read: The results.
        figures: The plots by what they show, as addresses from the README.
    """
    grid = read.grid
    lines = [f"**{grid.title}**", "", scale(read), ""]
    for metric in grid.metrics:
        paper = grid.papers.get(metric)
        # groups that the data does not have
        known = any(read.curves(row, column, metric) for row, column in read.done)
        if known or paper or (read.done and metric == grid.metrics[0]):
            beside = f", beside the paper's number in brackets ({grid.source})" if paper else ""
            if grid.chosen_by:
                # what the paper prints is of such an epoch, too
                title = f"{_named(metric)} (%) in the epoch with the best {grid.chosen_by}{beside}:"
                lines += [title, "", *_grid_of(read, metric, last, paper, grid.chosen_by), ""]
                beside, paper = "", None
            title = f"{_named(metric)} (%) after the last epoch{beside}:"
            lines += [title, "", *_grid_of(read, metric, last, paper), ""]
    if read.done:
        main = grid.metrics[0]
        chosen = partial(best, falls=_falls(main))
        lines += ["Best epoch (chosen on the test set: a bound, no result):", "", *_grid_of(read, main, chosen), ""]
        lines += [f"Mean of the last {_LAST} tested epochs:", "", *_grid_of(read, main, mean_of_last), ""]
    if any("train/memorised" in result["curve"] for result in read.all()):
        lines += ["Share of the wrong labels that are memorised (%), last epoch:", ""]
        lines += [*_grid_of(read, "train/memorised", last), ""]
    lines += _warnings(read)
    lines += [f"![{shown}]({address})" for shown, address in (figures or {}).items()]
    return "\n".join(lines).rstrip() + "\n"


def pending(grid: Grid) -> str:
    """What stands in the place of a table of which nothing is done."""
    return f"{grid.title}: none of {len(grid.runs)} runs is done yet (`grids/{grid.name}.yaml`).\n"


def _named(metric: str) -> str:
    plain = metric.removeprefix("test/")
    name, _, group = plain.partition("_")
    return _NAMES.get(plain) or (f"{_NAMES[name]}, {group}" if name in _NAMES else metric)


def axis(grid: Grid) -> str:
    """The main metric as a plot names it."""
    name = _named(grid.metrics[0])
    return name[0].lower() + name[1:]


def scale(read: Results) -> str:
    """What the numbers stand on."""
    every = read.all()
    total = len(read.grid.runs)
    if not every:
        return f"None of {total} runs is done yet."

    def values(name: str, unit: str = "") -> str:
        found = sorted({result[name] for result in every})
        shown = [f"{value:,}" if isinstance(value, int) else str(value) for value in found]
        return " or ".join(shown) + unit

    parts = [
        f"{len(every)} of {total} runs, {read.seeds} seeds (mean ± standard deviation over seeds)",
        values("train_samples", " training samples") + f" ({_shares(every)} wrong labels)",
        values("test_samples", " test samples"),
        values("epochs", " epochs"),
        values("batch_size", " in a batch"),
        f"median {statistics.median(result['seconds'] for result in every):.0f} s a run",
        "on " + values("device"),
        "commit " + values("commit"),
    ]
    return "; ".join(parts) + "."


def _shares(every: list[Spec]) -> str:
    known = [result["noise_rate"] for result in every if result["noise_rate"] is not None]
    if not known:
        return "an unknown share of"
    low, high = (round(100 * end(known)) for end in (min, max))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _grid_of(
    read: Results,
    name: str,
    number: Callable[[Iterable[float | None]], float],
    paper: dict[tuple[str, str], str] | None = None,
    chosen_by: str | None = None,
) -> list[str]:
    """A table of one number of each curve, up to the epoch that a validation number chooses, if one does."""
    grid = read.grid
    digits = 2 if grid.paper else 1
    lines = ["| | " + " | ".join(grid.columns) + " |", "|---|" + "---:|" * len(grid.columns)]
    # rows that nothing is known of are left out
    known = {row for row, _ in [*read.done, *(paper or {})]}
    for row in [row for row in grid.rows if row in known]:
        cells = []
        for column in grid.columns:
            curves = read.curves(row, column, name)
            if chosen_by:
                falls, by = _falls(chosen_by), read.curves(row, column, chosen_by)
                curves = [_up_to_best(*pair, falls) for pair in zip(curves, by, strict=True)]
            values = [100 * number(curve) for curve in curves if _numbers(curve)]
            cell = _cell(values, read.seeds, digits)
            broken = sum(bool(result["error"]) for result in read.done.get((row, column), []))
            cell += f" ({broken} broke off)" if broken else ""
            printed = (paper or {}).get((row, column))
            cells.append(f"{cell} [{printed.replace('±', ' ± ')}]" if printed else cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def _up_to_best(curve: list[float | None], chosen_by: list[float | None], falls: bool) -> list[float | None]:
    """A curve up to the first of the tested epochs with the best validation number."""
    tested = {e: by for e, by in enumerate(chosen_by) if by is not None and curve[e] is not None}
    return curve[: (min if falls else max)(tested, key=lambda e: tested[e]) + 1] if tested else []


def _cell(values: list[float], seeds: int, digits: int) -> str:
    if not values:
        return "–"
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text if len(values) == seeds else f"{text} ({len(values)} of {seeds} seeds)"


def _warnings(read: Results) -> list[str]:
    baseline = read.grid.baseline
    if baseline is None:
        return []
    lines = []
    for column in read.grid.columns:
        values = [last(curve) for curve in read.curves(baseline, column, "train/memorised") if _numbers(curve)]
        share = statistics.fmean(values) if values else 1.0
        if share < _MEMORISED:
            lines.append(
                f"- {column}: {baseline} memorised only {100 * share:.0f} % of the wrong labels. Below "
                f"{100 * _MEMORISED:.0f} % a column says little about resisting noise."
            )
    return [*lines, ""] if lines else []


# choosing settings ----------------------------------------------------------------------------------------------------


def select(read: Results, by: str = "val/acc") -> str:
    """Which setting of each method has the best noisy validation accuracy after the last epoch.

    Args:
        read: The results.
        by: The number to choose by, one of ``val/``; the test set has no say.

    Raises:
        ValueError: If ``by`` is no validation number, or the runs have none.
    """
    if not by.startswith("val/"):
        raise ValueError(
            f"--by {by!r} is no validation number. Settings are never chosen on the test set: use val/acc."
        )
    sign = -1.0 if _falls(by) else 1.0
    lines = [f"{scale(read)} By {by} (noisy validation labels, last epoch); the best of a column in bold.", ""]
    for method, settings in settings_of(read.grid).items():
        scores = {
            (row, column): statistics.fmean(last(curve) for curve in curves)
            for row in settings
            for column in read.grid.columns
            if (curves := [curve for curve in read.curves(row, column, by) if _numbers(curve)])
        }
        if not scores:
            continue
        lines += _choice(method, settings, read.grid.columns, scores, sign)
    if len(lines) == 2:
        raise ValueError(f"No result of {read.grid.name} has {by!r}. Run the grid first, with val_size in its data.")
    return "\n".join(lines).rstrip() + "\n"


def settings_of(grid: Grid) -> dict[str, dict[str, Run]]:
    """Every method's rows, each with one of its runs."""
    settings: dict[str, dict[str, Run]] = {}
    for run in grid.runs:
        settings.setdefault(run.method, {}).setdefault(run.row, run)
    return settings


def _choice(
    method: str,
    settings: dict[str, Run],
    columns: list[str],
    scores: dict[tuple[str, str], float],
    sign: float,
) -> list[str]:
    def mean(row: str) -> float | None:
        values = [scores[row, column] for column in columns if (row, column) in scores]
        return statistics.fmean(values) if len(values) == len(columns) else None

    winners = {
        column: max((row for row in settings if (row, column) in scores), key=lambda row: sign * scores[row, column])
        for column in columns
        if any((row, column) in scores for row in settings)
    }
    whole = [row for row in settings if mean(row) is not None]
    lines = [f"| {method} | " + " | ".join(columns) + " | mean |", "|---|" + "---:|" * (len(columns) + 1)]
    for row in settings:
        cells = []
        for column in columns:
            value = scores.get((row, column))
            text = "–" if value is None else f"{value:.4f}"
            cells.append(f"**{text}**" if winners.get(column) == row else text)
        average = mean(row)
        cells.append("–" if average is None else f"{average:.4f}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines += ["", *(f"- {column}: {_said(settings[row])}" for column, row in winners.items())]
    if whole:
        overall = max(whole, key=lambda row: sign * (mean(row) or 0.0))
        lines.append(f"- over all columns: {_said(settings[overall])}")
    return [*lines, ""]


def _said(run: Run) -> str:
    setting = ", ".join(f"{name}: {value}" for name, value in run.setting.items())
    return f"{run.method} {{{setting}}}" if setting else run.row
