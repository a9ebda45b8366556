"""Noise on labels that name any number of classes: each entry by itself."""

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_rate
from lightning_perturb.data.label_noise.base import LabelNoise
from lightning_perturb.data.labels import Labels


class EntryNoise(LabelNoise):
    """Flips entries of multi-hot labels, each by itself, with a probability that depends on its true value.

    With the same generator a larger rate flips a superset of what a smaller one flips.

    Args:
        rate: share of the concerned entries that are flipped, from 0 to 1.

    Raises:
        ValueError: if ``rate`` is not a share.
    """

    multi_label = True

    def __init__(self, rate: float) -> None:
        check_rate("rate", rate)
        self.rate = rate

    @abstractmethod
    def concerned(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Returns which entries may be flipped, shape [N, C]."""

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Returns the labels with entries flipped, by one uniform number for each."""
        flipped = self.concerned(labels) & (generator.random(labels.shape) < self.rate)
        return np.where(flipped, 1 - labels, labels)


class MultiLabelSymmetric(EntryNoise):
    """Symmetric noise on multi-hot labels: every entry is flipped with the same probability.

    As most entries are 0, most flips are false positives.

    Args:
        rate: share of entries that are wrong, from 0 to 1.
    """

    def concerned(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Returns all entries."""
        return np.ones(labels.shape, dtype=np.bool_)


class MissingLabels(EntryNoise):
    """Missing labels: positives become negatives, as where annotators overlook objects; no label is added.

    Args:
        rate: share of the positives that are missing, from 0 to 1.
    """

    def concerned(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Returns the positives."""
        positive: npt.NDArray[np.bool_] = labels == 1
        return positive


class FalsePositives(EntryNoise):
    """False positives: negatives become positives; no label is missing.

    Args:
        rate: share of the negatives that become positive, from 0 to 1. At 80 classes .01 is nearly one false label a
            sample.
    """

    def concerned(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Returns the negatives."""
        negative: npt.NDArray[np.bool_] = labels == 0
        return negative
