"""Class imbalance: how many samples of each class a long-tailed version of a training set keeps, and which."""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_choice, check_positive, check_rate
from lightning_perturb.data.labels import Labels, check_labels, choose_per_class, count_classes


class Imbalance(ABC):
    """Thins out the classes of a training set to target counts.

    A profile overrides ``class_counts`` alone.
    """

    @abstractmethod
    def class_counts(self, available: Labels, before_split: Labels | None = None) -> Labels:
        """Returns how many samples of each class to keep, shape [C], never more than ``available``.

        Args:
            available: class sizes of the training set as it is now, shape [C].
            before_split: class sizes before the meta and validation sets were taken out, shape [C]; None where
                nothing was taken out.
        """

    def __call__(
        self,
        labels: npt.ArrayLike,
        num_classes: int,
        generator: np.random.Generator,
        before_split: Labels | None = None,
    ) -> Labels:
        """Draws the samples to keep.

        With the same generator a stronger imbalance keeps a subset of what a weaker one keeps.

        Args:
            labels: true class ids, shape [N].
            num_classes: number of classes C.
            generator: the source of the draw.
            before_split: class sizes before the meta and validation sets were taken out, shape [C]; None where
                nothing was taken out.

        Returns:
            Sorted positions of the samples kept.

        Raises:
            ValueError: if a class has no sample, or keeps none.
        """
        ids = check_labels(labels, num_classes)
        available = count_classes(ids, num_classes)
        missing = np.flatnonzero(available == 0)
        if missing.size:
            raise ValueError(
                f"class {int(missing[0])} has no sample before the imbalance is applied ({missing.size} such classes). "
                f"Set num_classes={num_classes} to the classes that occur, or hold out fewer samples."
            )
        counts = self.class_counts(available, before_split)
        empty = np.flatnonzero(counts < 1)
        if empty.size:
            c = int(empty[0])
            raise ValueError(
                f"{type(self).__name__} leaves class {c} empty: {int(counts[c])} of its {int(available[c])} samples "
                f"remain ({empty.size} such classes). Lower ratio, or use more data."
            )
        return np.flatnonzero(choose_per_class(ids, counts, generator)).astype(np.int64, copy=False)


class Exponential(Imbalance):
    """Exponential long tail: the k-th of C classes keeps floor(head · ratio^(-k/(C-1))) samples.

    The head is the mean class size, N/C, and no class keeps more than it has. On CIFAR-10 at ratio 100 the counts are
    5000 .. 50 without a meta set, and 4990 .. 49 with ten meta images per class under the ``metasaug`` profile.

    Args:
        ratio: imbalance ratio, size of the largest class over that of the smallest; at least 1, and 1 keeps all of a
            balanced set.
        by: what orders the classes from head to tail: their ``id`` (as published for CIFAR), or their ``frequency`` in
            the training set, largest first.
        profile: which class size is the head once a meta or validation set was taken out: ``metasaug`` takes what is
            left, so that the ratio holds; ``ldam`` takes the size before, so that the counts are those published for
            the whole training set (where the head no longer has so many it keeps all, and the ratio shrinks). Without
            such sets both are the same.

    Raises:
        ValueError: if ``ratio`` is below 1 or an option is unknown.
    """

    def __init__(
        self,
        ratio: float,
        by: Literal["id", "frequency"] = "id",
        profile: Literal["ldam", "metasaug"] = "metasaug",
    ) -> None:
        _check_ratio(ratio)
        check_choice("by", by, ("id", "frequency"))
        check_choice("profile", profile, ("ldam", "metasaug"))
        self.ratio = ratio
        self.by = by
        self.profile = profile

    def class_counts(self, available: Labels, before_split: Labels | None = None) -> Labels:
        """Returns how many samples of each class to keep, shape [C]."""
        head = available if before_split is None or self.profile == "metasaug" else before_split
        place = np.arange(len(available)) / max(len(available) - 1, 1)
        return _keep(available, (head.sum() / len(head)) * (1 / self.ratio) ** place, self.by)


class Step(Imbalance):
    """Step imbalance: the head classes keep the mean class size, the others that size over the ratio.

    Args:
        ratio: imbalance ratio, size of a head class over that of a tail class; at least 1.
        fraction: share of the classes that are thinned out, from 0 to 1 (rounded down to whole classes).
        by: what orders the classes from head to tail: their ``id``, or their ``frequency`` in the training set,
            largest first.

    Raises:
        ValueError: if ``ratio`` is below 1, ``fraction`` is no share, or an option is unknown.
    """

    def __init__(self, ratio: float, fraction: float = 0.5, by: Literal["id", "frequency"] = "id") -> None:
        _check_ratio(ratio)
        check_rate("fraction", fraction)
        check_choice("by", by, ("id", "frequency"))
        self.ratio = ratio
        self.fraction = fraction
        self.by = by

    def class_counts(self, available: Labels, before_split: Labels | None = None) -> Labels:
        """Returns how many samples of each class to keep, shape [C]."""
        tail = np.arange(len(available)) >= len(available) - int(self.fraction * len(available) + _SLACK)
        head = available.sum() / len(available)
        return _keep(available, np.where(tail, head * (1 / self.ratio), head), self.by)


class Balanced(Imbalance):
    """No imbalance: every class keeps as many samples, such as a balanced part of a large set with noisy labels.

    Args:
        per_class: samples of each class; a class that has fewer keeps all. None takes the size of the smallest class.

    Raises:
        ValueError: if ``per_class`` is not positive.
    """

    def __init__(self, per_class: int | None = None) -> None:
        if per_class is not None:
            check_positive("per_class", per_class)
        self.per_class = per_class

    def class_counts(self, available: Labels, before_split: Labels | None = None) -> Labels:
        """Returns how many samples of each class to keep, shape [C]."""
        return np.minimum(available, available.min() if self.per_class is None else self.per_class)


# 0.3 * 10 and 5000 * 0.01 must not lose one to the last bit of a float
_SLACK = 1e-9


def _check_ratio(ratio: float) -> None:
    if not 1.0 <= ratio < np.inf:
        raise ValueError(f"ratio={ratio!r} must be at least 1: the largest class over the smallest (100, not 0.01).")


def _keep(available: Labels, target: npt.NDArray[np.float64], by: str) -> Labels:
    """Gives the k-th target, rounded down, to the k-th class in the order of ``by``."""
    order = np.argsort(-available, kind="stable") if by == "frequency" else np.arange(len(available))
    counts = np.empty_like(available)
    counts[order] = np.floor(target + _SLACK).astype(np.int64)
    return np.minimum(counts, available)
