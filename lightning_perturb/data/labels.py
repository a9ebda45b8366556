"""Label vectors: their check, their counts, and a draw of so many samples per class."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = npt.NDArray[np.int64]


def check_labels(labels: npt.ArrayLike, num_classes: int, name: str = "labels") -> Labels:
    """Returns a label vector as int64, or says what is wrong with it.

    Args:
        labels: class ids, shape [N], whole numbers in 0..num_classes-1.
        num_classes: number of classes C.
        name: what the labels are called in the message.

    Returns:
        int64 array of shape [N]; shares memory with ``labels`` where that already is int64.

    Raises:
        ValueError: if the labels are not one vector of whole numbers in 0..num_classes-1.
    """
    array: npt.NDArray[Any] = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}. Give one class id per sample, shape [N].")
    if array.size and array.dtype.kind not in "iub":
        raise ValueError(f"{name} has dtype {array.dtype}. Give class ids as whole numbers (labels.astype(int)).")
    ids = array.astype(np.int64, copy=False)
    outside = np.flatnonzero((ids < 0) | (ids >= num_classes))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"{name}[{first}]={int(ids[first])} is outside 0..{num_classes - 1} ({outside.size} such labels). "
            f"Set num_classes={num_classes} to the true number of classes, or renumber the classes from 0."
        )
    return ids


def check_multi_hot(labels: npt.ArrayLike, num_classes: int, name: str = "labels") -> Labels:
    """Returns multi-hot labels as int64, or says what is wrong with them.

    Args:
        labels: one 0 or 1 (or False and True) for each sample and class, shape [N, num_classes].
        num_classes: number of classes C.
        name: what the labels are called in the message.

    Returns:
        int64 array of shape [N, C]; shares memory with ``labels`` where that already is int64.

    Raises:
        ValueError: if the labels are not one matrix of zeros and ones with a column for each class.
    """
    array: npt.NDArray[Any] = np.asarray(labels)
    if array.ndim != 2 or array.shape[1] != num_classes:
        raise ValueError(f"{name} has shape {array.shape}. Give one 0 or 1 for each class, shape [N, {num_classes}].")
    wrong = np.argwhere((array != 0) & (array != 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ValueError(
            f"{name}[{row}, {column}]={array[row, column]} is neither 0 nor 1 ({len(wrong)} such entries). Multi-hot "
            "labels hold 1 for the classes of a sample and 0 for the others."
        )
    return array.astype(np.int64, copy=False)


def count_classes(labels: Labels, num_classes: int) -> Labels:
    """Returns the number of samples of each class, shape [num_classes]; for multi-hot labels [N, C] the positives."""
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)
    return counts.astype(np.int64, copy=False)


def choose_per_class(labels: Labels, counts: Labels, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Marks ``counts[c]`` random samples of every class c.

    One random key per sample ranks the samples inside their class. With the same generator a larger count therefore
    marks a superset of what a smaller one marks.

    Args:
        labels: class ids, shape [N].
        counts: how many samples to mark, shape [C]; a count above what the class has marks the whole class.
        generator: the source of the keys; advanced by N draws.

    Returns:
        Mask of shape [N].
    """
    order = np.lexsort((generator.random(len(labels)), labels))
    grouped = labels[order]
    starts = np.concatenate(([0], np.cumsum(count_classes(labels, len(counts)))))[:-1]
    rank = np.arange(len(labels)) - starts[grouped]
    mask = np.zeros(len(labels), dtype=np.bool_)
    mask[order] = rank < counts[grouped]
    return mask
