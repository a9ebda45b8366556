"""What a recorder wrote, as memory-mapped tables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.callbacks.rows import copy_rows, read_rows, write_row

_FLOAT16 = np.finfo(np.float16)


#: recorded of every method; a method cannot tell numbers under these names, nor under those of a step's outputs
_TABLES = ("margin", "loss", "prediction", "given")
_TOLD = re.compile(r"\w+(/\w+)*", re.ASCII)


def can_be_told(name: str) -> bool:
    """Whether numbers of this name can be recorded: words between slashes, and no table's or output's own name."""
    return name not in (*_TABLES, "logits", "y", "index") and _TOLD.fullmatch(name) is not None


def _told_names(folder: Path) -> list[str]:
    found = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.npy"))
    return sorted(name for name in found if can_be_told(name))


class Records:
    """The training dynamics of a run: one row an epoch, one column a sample of the full original training set.

    Attributes:
        margin: u_y - max of the others in the training forward, float16 ``[epochs, N]``; NaN where unseen.
        loss: Plain cross-entropy of the raw training logits with the given label, float16 ``[epochs, N]``.
        prediction: Predicted class in the training forward, integers ``[epochs, N]``; -1 where unseen.
        told: What the method told of each sample, by name, float16 ``[epochs, N]`` each; NaN where it told nothing.
            ``sample_loss`` is the loss that it minimises, ``hyperparameter/q`` the hyperparameter q of that loss.
        given: Given labels, int32 ``[N]``; -1 for samples that were never trained on.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "margin.npy").is_file():
            raise FileNotFoundError(
                f"path={str(folder)!r} holds no records. Give the folder 'records' of a run that was trained with the "
                "callback Recorder for at least one epoch."
            )
        self.margin: npt.NDArray[np.float16] = read_rows(self.folder / "margin.npy")
        self.loss: npt.NDArray[np.float16] = read_rows(self.folder / "loss.npy")
        self.prediction: npt.NDArray[np.signedinteger[Any]] = read_rows(self.folder / "prediction.npy")
        self.given: npt.NDArray[np.int32] = read_rows(self.folder / "given.npy")[0]
        self.told: dict[str, npt.NDArray[np.float16]] = {
            name: read_rows(self.folder / f"{name}.npy") for name in _told_names(self.folder)
        }

    @property
    def perturbation_norm(self) -> npt.NDArray[np.float16] | None:
        """Norm of the perturbation, float16 ``[epochs, N]``; None where the method tells none."""
        return self.told.get("perturbation_norm")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Records:
        """Opens the records of a run.

        Args:
            path: The folder ``records``, or the run's folder around it.

        Raises:
            FileNotFoundError: If there are no records.
        """
        folder = Path(path)
        inner = folder / "records"
        return cls(inner if (inner / "margin.npy").is_file() else folder)

    def __len__(self) -> int:
        """Number of epochs."""
        return len(self.margin)


def write_epoch(
    folder: Path,
    epoch: int,
    *,
    margin: npt.NDArray[np.float32],
    loss: npt.NDArray[np.float32],
    told: Mapping[str, npt.NDArray[np.float32]],
    prediction: npt.NDArray[np.signedinteger[Any]],
    given: npt.NDArray[np.int32],
) -> None:
    """Writes the row of an epoch into every file.

    Args:
        folder: Where the files are.
        epoch: Number of the row.
        margin: Margins ``[N]``.
        loss: Losses ``[N]``.
        told: Numbers ``[N]`` by name; a name that is missing, or all NaN, was not told in this epoch.
        prediction: Predicted classes ``[N]``.
        given: Given labels ``[N]``, -1 where unseen in this epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "given.npy"
    if path.exists():
        # a sample that this epoch left out keeps the label it came with
        before = np.full_like(given, -1)
        stored = read_rows(path)[0][: len(given)]
        before[: len(stored)] = stored
        given = np.where(given < 0, before, given)
    write_row(path, 0, given, -1)
    write_row(folder / "prediction.npy", epoch, prediction, -1)
    write_row(folder / "loss.npy", epoch, _half(loss), np.nan)
    for name in {*told, *_told_names(folder)}:
        path = folder / f"{name}.npy"
        values = told.get(name, np.full_like(margin, np.nan))
        if path.exists() or not np.isnan(values).all():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_row(path, epoch, _half(values), np.nan)
    write_row(folder / "margin.npy", epoch, _half(margin), np.nan)


def keep_epochs(source: Path, target: Path, epochs: int) -> int:
    """Makes the target folder hold the first epochs of the source, which may be the same folder.

    Returns:
        How many epochs there were to keep.
    """
    if source != target:
        target.mkdir(parents=True, exist_ok=True)
    for name in {*_TABLES[:3], *_told_names(source), *_told_names(target)}:
        path = target / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_rows(source / f"{name}.npy", path, epochs)
    copy_rows(source / "given.npy", target / "given.npy", 1 if epochs else 0)
    kept = target / "margin.npy"
    return len(read_rows(kept)) if kept.exists() else 0


def _half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    # a diverging run has margins beyond float16: the largest number is nearer to them than infinity
    return np.clip(values, _FLOAT16.min, _FLOAT16.max).astype(np.float16)
