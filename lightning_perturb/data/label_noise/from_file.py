"""Given labels that a file holds."""

import csv
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.label_noise.base import LabelNoise
from lightning_perturb.data.label_noise.files import existing, suffix_of
from lightning_perturb.data.labels import Labels, check_labels


class LabelsFromFile(LabelNoise):
    """Takes the given labels from a file: human labels such as CIFAR-N, labels of your own, or a repaired list.

    The file counts by position in the full original training set, so it also fits after a split or an imbalance.

    * ``.pt``: a vector, or a dict of vectors of which ``key`` names one. For CIFAR-N (in torchvision's order) these
      are ``aggre_label``, ``worse_label``, ``random_label1`` to ``random_label3`` and ``clean_label`` for CIFAR-10, and
      ``noisy_label`` and ``clean_label`` for CIFAR-100. Read without executing anything that the file may contain.
      Where it has a ``clean_label``, this must agree with the true labels, so that a wrong order is noticed.
    * ``.npy``: a vector of whole numbers.
    * ``.csv``: one label per line; or a header, of which ``column`` names one. With a column ``index`` the file lists
      only some samples, and all others keep their label: the report of suspected labels (``index, given_label,
      suggested_label, score``) with ``column: suggested_label`` gives the repaired labels. Where it has a
      ``given_label``, this must agree with the labels that are replaced. After synthetic noise put both into a
      ``Chain``: the noise that the report was made under, then this.

    Args:
        path: the file, ending in ``.pt``, ``.npy`` or ``.csv``.
        key: which vector of a ``.pt`` file to take; null where it holds one vector.
        column: which column of a ``.csv`` file to take; null where it has one column.

    Raises:
        ValueError: if the ending is unknown, or ``key`` or ``column`` does not belong to it.
    """

    def __init__(self, path: str, key: str | None = None, column: str | None = None) -> None:
        suffix = suffix_of("path", path, (".pt", ".npy", ".csv"))
        if key is not None and suffix != ".pt":
            raise ValueError(f"key={key!r} names a vector of a .pt file, but path={path!r}. Drop key.")
        if column is not None and suffix != ".csv":
            raise ValueError(f"column={column!r} names a column of a .csv file, but path={path!r}. Drop column.")
        self.path = path
        self.key = key
        self.column = column
        self.suffix = suffix

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Returns the labels of the file at ``index``, and the labels as they were where it lists none.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file cannot be read, does not fit the training set in length, or holds labels outside
                0..C-1.
        """
        stored = self._read()
        content = check_labels(stored.labels, num_classes, f"labels in {self.path!r}")
        if stored.positions is None:
            self._check_length(len(content), index, total)
            here, rows = np.arange(len(labels)), index
        else:
            here, rows = self._find(stored.positions, index, total)
        if stored.replaced is not None:
            name, before = stored.replaced
            differs = np.flatnonzero(before[rows] != labels[here])
            if differs.size:
                first = int(differs[0])
                raise ValueError(
                    f"{name} in {self.path!r} differs from the labels of the training set for {differs.size} of "
                    f"{len(here)} samples (first: position {int(index[here[first]])}, {int(before[rows[first]])} in "
                    f"the file, {int(labels[here[first]])} in the set). Use the file that belongs to this data set and "
                    "order; after synthetic noise put the noise before it in a Chain, with the same seed."
                )
        labels[here] = content[rows]
        return labels

    def _read(self) -> "_Stored":
        path = existing(
            "path",
            self.path,
            "one label per sample of the full training set (for CIFAR-N: CIFAR-10_human.pt or CIFAR-100_human.pt, "
            "from the data folder of github.com/UCSC-REAL/cifar-10-100n)",
        )
        if self.suffix == ".pt":
            return _read_pt(path, self.key)
        if self.suffix == ".npy":
            return _Stored(_read_npy(path))
        return _read_csv(path, self.column)

    def _check_length(self, length: int, index: Labels, total: int | None) -> None:
        # without the total, the largest position is the best bound there is
        needed = int(index.max(initial=-1)) + 1
        if (total is not None and length != total) or length < needed:
            size = f"{total}" if total is not None else f"at least {needed}"
            raise ValueError(
                f"path={self.path!r} holds {length} labels, but the full training set has {size} samples. Give one "
                "label per sample of the full training set (before any split), or a .csv with a column index."
            )

    def _find(self, positions: Labels, index: Labels, total: int | None) -> tuple[Labels, Labels]:
        """Samples that the file lists, and the row of the file for each."""
        least, most = int(positions.min(initial=0)), int(positions.max(initial=0))
        if least < 0 or (total is not None and most >= total):
            wrong = least if least < 0 else most
            bound = "from 0" if total is None else f"0..{total - 1}"
            raise ValueError(f"index in {self.path!r} holds {wrong}. Positions in the full training set are {bound}.")
        order = np.argsort(positions, kind="stable")
        ordered = positions[order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if twice.size:
            raise ValueError(f"index in {self.path!r} lists {int(ordered[twice[0]])} twice. List each sample once.")
        here = np.flatnonzero(np.isin(index, ordered))
        return here, order[np.searchsorted(ordered, index[here])]


class _Stored(NamedTuple):
    """What a file holds: labels, the positions they belong to (None: all in order), and the labels they replace."""

    labels: npt.NDArray[Any]
    positions: Labels | None = None
    replaced: tuple[str, Labels] | None = None


def _read_npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except ValueError as error:
        raise ValueError(
            f"path={str(path)!r} is not a plain vector of numbers ({error}). Save class ids with numpy.save, or use "
            "the .pt form of the file."
        ) from error


def _read_pt(path: Path, key: str | None) -> _Stored:
    import torch  # numpy alone is enough for every other noise

    # leaving the context forgets what it was given, so what was allowed before is not given to it
    allowed = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals([part for part in _numpy_globals() if part not in allowed]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"path={str(path)!r} is not a file of plain label vectors and was not loaded. Save numpy arrays or tensors "
            "of whole numbers, or a dict of them, with torch.save."
        ) from error
    if not isinstance(content, Mapping):
        if key is not None:
            raise ValueError(f"key={key!r} is given, but path={str(path)!r} holds one vector. Drop key.")
        return _Stored(np.asarray(content))
    if key not in content:
        raise ValueError(f"key={key!r} is not in path={str(path)!r}. Choose one of: {', '.join(map(str, content))}.")
    labels = np.asarray(content[key])
    if "clean_label" not in content:
        return _Stored(labels)
    clean = np.asarray(content["clean_label"])
    _check_same_length(path, key, len(labels), "clean_label", len(clean))
    return _Stored(labels, replaced=("clean_label", clean))


def _numpy_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What a pickled array of whole numbers is made of; nothing of it runs code from the file."""
    reconstruct: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
    integers = [np.dtype(kind + size) for kind in "iu" for size in "1248"]
    return [
        # the module was renamed in numpy 2; files carry the name of the numpy that wrote them
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *{type(integer) for integer in integers},
    ]


def _read_csv(path: Path, column: str | None) -> _Stored:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if not lines:
        raise ValueError(f"path={str(path)!r} is empty. Write one label per line, or a header and one row per sample.")
    head = [name.strip() for name in lines[0]]
    if _is_whole(head[0]):
        if column is not None or len(head) > 1:
            raise ValueError(
                f"path={str(path)!r} has no header to find column={column!r} in. Write the names of the columns into "
                "its first line, or one label per line and no column."
            )
        return _Stored(_numbers(path, "labels", lines, 0, first_line=1))
    places = {name: place for place, name in enumerate(head)}
    if column is None and len(head) > 1:
        raise ValueError(f"column=None, but path={str(path)!r} has several. Choose one of: {', '.join(head)}.")
    if column is not None and column not in places:
        raise ValueError(f"column={column!r} is not in path={str(path)!r}. Choose one of: {', '.join(head)}.")
    vectors = {
        name: _numbers(path, name, lines[1:], places[name], first_line=2)
        for name in {column or head[0], "index", "given_label"} & places.keys()
    }
    before = vectors.get("given_label")
    return _Stored(
        vectors[column or head[0]],
        positions=vectors.get("index"),
        replaced=None if before is None else ("given_label", before),
    )


def _numbers(path: Path, name: str, lines: list[list[str]], place: int, first_line: int) -> Labels:
    values = np.empty(len(lines), dtype=np.int64)
    for row, line in enumerate(lines):
        cell = line[place].strip() if place < len(line) else ""
        if not _is_whole(cell):
            raise ValueError(
                f"{name} in {str(path)!r} is {cell!r} in row {row + first_line}. Write whole numbers: class ids and "
                "positions count from 0."
            )
        values[row] = int(cell)
    return values


def _is_whole(cell: str) -> bool:
    return cell.strip().removeprefix("-").isdecimal()


def _check_same_length(path: Path, key: str | None, length: int, other: str, other_length: int) -> None:
    if length != other_length:
        raise ValueError(f"{key} holds {length} labels and {other} {other_length} in {str(path)!r}. Repair the file.")
