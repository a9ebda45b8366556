"""Scores over the records of a run, in NumPy.

``[E, N]`` are epochs and samples. A NaN margin or a prediction below 0 means that the sample was not seen in that
epoch. The tables may be memory maps: they are read epoch by epoch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_range

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.signedinteger[Any]]
Bools = npt.NDArray[np.bool_]

# bounds the table of votes, samples x classes, to 64 MB
_VOTES_AT_ONCE = 1 << 24


def area_under_margin(margins: Floats) -> npt.NDArray[np.float64]:
    """The mean margin over the epochs (Pleiss et al., Identifying mislabeled data, 2020).

    Args:
        margins: Margins ``[E, N]``.

    Returns:
        Means over the epochs in which a sample was seen ``[N]``; NaN for samples that never were.
    """
    return mean_over_epochs(margins)


def mean_over_epochs(values: Floats) -> npt.NDArray[np.float64]:
    """The mean of each column ``[N]`` of ``[E, N]`` without its NaN; NaN where there is nothing else."""
    total, count = np.zeros(values.shape[1]), np.zeros(values.shape[1], dtype=np.int64)
    for row in values:
        seen = ~np.isnan(row)
        total[seen] += row[seen]
        count += seen
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def forgetting(predictions: Ints, given: Ints) -> npt.NDArray[np.float64]:
    """How often a sample was forgotten: right in one epoch, wrong in the next (Toneva et al., 2019).

    Epochs in which a sample was not seen are passed over.

    Args:
        predictions: Predicted classes ``[E, N]``.
        given: Given labels ``[N]``.

    Returns:
        Counts ``[N]``; infinity for samples that were never predicted as given, NaN for samples that were never seen.
    """
    count = np.zeros(len(given))
    right_before = np.zeros(len(given), dtype=bool)
    learnt, ever = right_before.copy(), right_before.copy()
    for row in predictions:
        seen, right = row >= 0, row == given
        count += seen & right_before & ~right
        right_before = np.where(seen, right, right_before)
        learnt |= seen & right
        ever |= seen
    return np.where(ever, np.where(learnt, count, np.inf), np.nan)


def memorised(prediction: Ints, given: Ints, noisy: Bools) -> float:
    """Share of the wrongly labelled samples that are predicted as their wrong label.

    Args:
        prediction: Predicted classes ``[N]``.
        given: Given labels ``[N]``.
        noisy: Whether the given label is wrong ``[N]``.

    Returns:
        A share in 0..1; NaN if no wrongly labelled sample was seen.
    """
    counted = noisy & (prediction >= 0)
    return float(np.mean(prediction[counted] == given[counted])) if counted.any() else math.nan


def suspect_scores(margins: Floats, part: float = 0.5) -> npt.NDArray[np.float64]:
    """How suspect each given label is: minus the area under the margin over the first part of the epochs.

    A network learns what most labels say before it memorises the others: the early margins tell right labels from
    wrong ones, the late ones less and less.

    Args:
        margins: Margins ``[E, N]``.
        part: The part of the epochs that is looked at, from the first on, in (0, 1].

    Returns:
        Scores ``[N]``, larger for more suspect labels; NaN for samples that were not seen.

    Raises:
        ValueError: If ``part`` is outside (0, 1].
    """
    return -area_under_margin(margins[: first_epochs(len(margins), part)])


def suggested_labels(predictions: Ints, given: Ints, part: float = 0.5) -> npt.NDArray[np.int64]:
    """The most frequent prediction over the first part of the epochs, before wrong labels are memorised.

    Where several classes are equally frequent the given label is kept if it is one of them, otherwise the smallest id
    is taken.

    Args:
        predictions: Predicted classes ``[E, N]``.
        given: Given labels ``[N]``.
        part: The part of the epochs that is looked at, from the first on, in (0, 1].

    Returns:
        Class ids ``[N]``; the given label for samples that were not seen.

    Raises:
        ValueError: If ``part`` is outside (0, 1].
    """
    looked = predictions[: first_epochs(len(predictions), part)]
    classes = max(int(looked.max(initial=-1)), int(given.max(initial=-1))) + 1
    best = np.array(given, dtype=np.int64)
    for start in range(0, len(given), _VOTES_AT_ONCE // max(classes, 1) + 1):
        chunk = slice(start, start + _VOTES_AT_ONCE // max(classes, 1) + 1)
        best[chunk] = _vote(looked[:, chunk], given[chunk], classes)
    return best


def _vote(predictions: Ints, given: Ints, classes: int) -> npt.NDArray[np.int64]:
    votes = np.zeros((len(given), classes), dtype=np.int32)
    for row in predictions:
        seen = np.flatnonzero(row >= 0)
        votes[seen, row[seen]] += 2
    # half a vote: it decides between equals and nothing else
    labelled = np.flatnonzero(given >= 0)
    votes[labelled, given[labelled]] += 1
    winner: npt.NDArray[np.int64] = votes.argmax(1)
    return np.where(given >= 0, winner, given)


def first_epochs(epochs: int, part: float) -> int:
    """How many epochs a part of them is: at least one, rounded up."""
    check_range("part", part, 0.0, 1.0, open_low=True)
    return max(1, math.ceil(part * epochs))
