"""Splits of a training set: in proportion to the classes, and with the same number of each class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.labels import Labels, check_labels, check_multi_hot, choose_per_class, count_classes

__all__ = ["balanced_meta_split", "check_labels", "stratified_split"]


def stratified_split(
    labels: npt.ArrayLike, num_classes: int, size: int | float, generator: np.random.Generator
) -> tuple[Labels, Labels]:
    """Holds out samples in proportion to the class sizes, and leaves every class at least one sample.

    The proportional shares are rounded so that their sum is exactly ``size``: down at first, then up for the classes
    whose share lost most. Multi-hot labels are split by iterative stratification: class after class, the rarest first.

    Args:
        labels: class ids, shape [N], or multi-hot labels, shape [N, C].
        num_classes: number of classes C.
        size: how many samples to hold out, or their share of N where it is below 1.
        generator: the source of the draw.

    Returns:
        Positions of the rest and positions of the held-out samples: both sorted, disjoint, together 0..N-1.

    Raises:
        ValueError: if ``size`` is negative, neither a share nor a whole number, or leaves a class without a sample.
    """
    if np.ndim(labels) == 2:
        return _multi_label_split(check_multi_hot(labels, num_classes), size, generator)
    ids = check_labels(labels, num_classes)
    number = _number(size, len(ids))
    available = count_classes(ids, num_classes)
    most = np.maximum(available - 1, 0)
    if number > most.sum():
        raise ValueError(
            f"size={size!r} holds out {number} of {len(ids)} samples and leaves a class without a sample. "
            f"Hold out at most {int(most.sum())}."
        )
    share = number * available / max(len(ids), 1)
    counts = np.minimum(np.floor(share).astype(np.int64), most)
    while counts.sum() < number:
        counts[np.argmax(np.where(counts < most, share - counts, -np.inf))] += 1
    return _divide(choose_per_class(ids, counts, generator))


def _multi_label_split(labels: Labels, size: int | float, generator: np.random.Generator) -> tuple[Labels, Labels]:
    """Iterative stratification: a class's undecided samples are dealt out when it is the one with fewest of them."""
    number = _number(size, len(labels))
    available = labels.sum(0)
    wanted = number * available / max(len(labels), 1)
    order = generator.permutation(len(labels))
    held = np.zeros(len(labels), dtype=np.bool_)
    undecided = np.ones(len(labels), dtype=np.bool_)
    classes = set(range(labels.shape[1]))
    while classes:
        open_counts = labels[undecided].sum(0)
        c = min(classes, key=lambda k: (open_counts[k], k))
        classes.remove(c)
        mine = order[undecided[order] & (labels[order, c] == 1)]
        already = int(labels[held, c].sum())
        # the class keeps a sample
        take = min(round(wanted[c] - already), available[c] - 1 - already)
        held[mine[: max(take, 0)]] = True
        undecided[mine] = False
    _adjust_number(labels, held, number, order)
    return _divide(held)


def _adjust_number(labels: Labels, held: npt.NDArray[np.bool_], number: int, order: Labels) -> None:
    """Moves samples, those with the fewest labels first, until ``number`` are held and no class is all held."""
    by_labels = order[np.argsort(labels[order].sum(1), kind="stable")]
    left, missing = labels[~held].sum(0), number - int(held.sum())

    def move(i: int) -> int:
        held[i] = not held[i]
        left[:] += labels[i] * (-1 if held[i] else 1)
        return -1 if held[i] else 1

    for i in by_labels[::-1]:
        # a class whose rarer companions took all of its samples
        if held[i] and (labels[i] > left).any():
            missing += move(i)
    for i in by_labels:
        spare = held[i] if missing < 0 else not held[i] and (left > labels[i]).all(where=labels[i] == 1)
        if missing and spare:
            missing += move(i)
    if missing:
        raise ValueError(
            f"size={number} of {len(labels)} samples cannot be held out so that every class keeps a sample. Hold out "
            f"at most {number - missing}."
        )


def balanced_meta_split(
    labels: npt.ArrayLike,
    num_classes: int,
    meta_size: int,
    generator: np.random.Generator,
    names: Sequence[str] | None = None,
) -> tuple[Labels, Labels]:
    """Takes a meta set with the same number of samples of every class out of the training set.

    Every class gives ``meta_size // C`` samples; what is left over by the division is taken one each from the first
    classes.

    Args:
        labels: class ids, shape [N].
        num_classes: number of classes C.
        meta_size: number of meta samples; 0 gives an empty meta set.
        generator: the source of the draw.
        names: what the classes are called in messages; None numbers them.

    Returns:
        Positions of the training samples that remain and positions of the meta samples: both sorted, disjoint,
        together 0..N-1.

    Raises:
        ValueError: if ``meta_size`` is negative, asks a class for more than it has, or leaves a class without a
            training sample.
    """
    ids = check_labels(labels, num_classes)
    # each class must keep one training sample, so the smallest class bounds the meta set
    return _divide(_choose_balanced(ids, num_classes, meta_size, generator, 1, names))


def balanced_choice(
    labels: Labels,
    num_classes: int,
    meta_size: int,
    generator: np.random.Generator,
    names: Sequence[str] | None = None,
) -> Labels:
    """Sorted positions of as many samples of every class, as :func:`balanced_meta_split` takes; a class may give all.

    Raises:
        ValueError: if ``meta_size`` is negative or asks a class for more than it has.
    """
    return np.flatnonzero(_choose_balanced(labels, num_classes, meta_size, generator, 0, names))


def _choose_balanced(
    ids: Labels,
    num_classes: int,
    meta_size: int,
    generator: np.random.Generator,
    kept: int,
    names: Sequence[str] | None,
) -> npt.NDArray[np.bool_]:
    if meta_size < 0:
        raise ValueError(f"meta_size={meta_size!r} is negative. Give a number of samples, 0 for no meta set.")
    available = count_classes(ids, num_classes)
    counts = meta_size // num_classes + (np.arange(num_classes) < meta_size % num_classes).astype(np.int64)
    short = np.flatnonzero((counts > available - kept) & (counts > 0))
    if short.size:
        c = int(short[np.argmin(available[short] - counts[short])])
        name = f"class {c}" if names is None else names[c]
        most = max(int(available.min()) - kept, 0) * num_classes
        fault = "has only" if counts[c] > available[c] else "would have no training sample left: it has just"
        raise ValueError(
            f"meta_size={meta_size} asks for {int(counts[c])} samples of {name}, which {fault} {int(available[c])}. "
            f"Set meta_size to at most {most}."
        )
    return choose_per_class(ids, counts, generator)


def _number(size: int | float, total: int) -> int:
    """The number of held-out samples that a count or a share asks for."""
    if 0 <= size < 1:
        return round(size * total)
    # 1.0 may mean all or one, and the command line writes whole numbers as floats
    if not np.isfinite(size) or size < 0 or size != int(size) or (isinstance(size, float) and size == 1):
        raise ValueError(
            f"size={size!r} is neither a share below 1 nor a whole number of samples. Give one of the two."
        )
    return int(size)


def _divide(held: npt.NDArray[np.bool_]) -> tuple[Labels, Labels]:
    """Positions outside and inside a mask."""
    return np.flatnonzero(~held).astype(np.int64, copy=False), np.flatnonzero(held).astype(np.int64, copy=False)
