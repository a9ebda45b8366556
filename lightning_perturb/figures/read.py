"""Metrics by epoch from what loggers wrote."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

Curve = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def read_metric(path: str | os.PathLike[str], name: str) -> Curve:
    """Reads a metric by epoch from a run of Lightning's CSVLogger or TensorBoardLogger.

    Args:
        path: The run's folder (such as ``version_0``), its ``metrics.csv``, or an event file.
        name: Name of the metric, such as ``val/acc``.

    Returns:
        Epochs from 0 ``[n]`` and values ``[n]``; of several values in an epoch the last.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If the metric was not logged.
    """
    path = Path(path)
    table = path / "metrics.csv" if path.is_dir() else path
    if table.suffix == ".csv" and table.is_file():
        found, known = _from_csv(table, name)
    elif path.is_file() or any(path.glob("events.out.tfevents.*")):
        found, known = _from_events(path, name)
    else:
        raise FileNotFoundError(
            f"path={str(path)!r} holds neither metrics.csv nor event files. Give the folder of a run that was logged "
            "with CSVLogger or TensorBoardLogger."
        )
    if not found:
        raise ValueError(f"name={name!r} was not logged in {str(path)!r}. Choose one of: {', '.join(sorted(known))}.")
    epochs = sorted(found)
    return np.array(epochs, dtype=np.int64), np.array([found[epoch] for epoch in epochs])


def _from_csv(path: Path, name: str) -> tuple[dict[int, float], set[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {int(row["epoch"]): float(row[name]) for row in rows if row.get(name) and row.get("epoch")}
    return found, {column for row in rows[:1] for column in row} - {"epoch", "step"}


def _from_events(path: Path, name: str) -> tuple[dict[int, float], set[str]]:
    # slow to import, and needed here alone
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    # 0: all of them; by default the reader keeps a random selection of long curves
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    known = set(events.Tags()["scalars"])
    if name not in known or "epoch" not in known:
        return {}, known - {"epoch"}
    # Lightning writes the epoch beside every metric, at the same step
    epoch_at = {event.step: int(event.value) for event in events.Scalars("epoch")}
    found = {epoch_at[event.step]: float(event.value) for event in events.Scalars(name) if event.step in epoch_at}
    return found, known
