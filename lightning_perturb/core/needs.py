"""The contract between methods and data: neither imports the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Needs:
    """What a method asks the data to serve.

    Attributes:
        index: Each sample's position in the full original training set.
        views: How many independently augmented views of each sample.
        meta: A second stream of clean samples.
        scores: A pass over the training set in index order, without augmentation, between epochs.
        truth: Which given labels are wrong. For studies alone: no method that is to be used may ask for it.
        balanced_from: First epoch whose training batches hold all classes alike often, None for none.
        balanced_by: What comes alike often in them: ``class``, ``domain``, or ``group``, a class in a domain.
        meta_from: First epoch in which it reads the second stream.
        meta_every: In every so manieth batch of such an epoch it does, from the first on; elsewhere None comes.
        domains: Each sample's domain (place, colour, source), which with its class makes its group.
    """

    index: bool = False
    views: int = 1
    meta: bool = False
    scores: bool = False
    truth: bool = False
    balanced_from: int | None = None
    balanced_by: str = "class"
    meta_from: int = 0
    meta_every: int = 1
    domains: bool = False


@dataclass(frozen=True)
class DataFacts:
    """What the data tells a method before training.

    Attributes:
        num_samples: Size of the full original training set, the range of ``index``.
        num_classes: Number of classes.
        class_counts: Given labels per class in the training split ``[C]``; positives where labels are multi-hot.
        mean: Per-channel mean that pixels in [0, 1] are shifted by, or None where inputs are not normalised pixels.
        std: Per-channel divisor, likewise.
        multi_label: Whether labels are multi-hot ``[B, C]`` instead of class ids ``[B]``.
        train_samples: Size of the training split; 0 where it is not told.
        noisy: Which samples of the full training set carry a wrong label ``[N]``; None unless the method's needs ask
            for the truth, or where nobody knows it.
        true_counts: True labels per class in the training split ``[C]``, or positives; None where they are unknown.
            Evaluation groups classes by them; no loss may read them.
        num_domains: Number of domains, the range of ``batch.extra["domain"]``; 0 where samples have none.
        group_counts: Given labels per class and domain in the training split ``[C, D]``; None where there are none.
        vocabulary: What ids of the input stand for, by id, padding and the unknown word included; None where inputs
            are no words.
    """

    num_samples: int
    num_classes: int
    class_counts: npt.NDArray[np.int64]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    multi_label: bool = False
    train_samples: int = 0
    noisy: npt.NDArray[np.bool_] | None = None
    true_counts: npt.NDArray[np.int64] | None = None
    num_domains: int = 0
    group_counts: npt.NDArray[np.int64] | None = None
    vocabulary: tuple[str, ...] | None = None
