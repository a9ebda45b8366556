"""Noise on the first samples of a corpus."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_rate
from lightning_perturb.data.label_noise.base import LabelNoise
from lightning_perturb.data.labels import Labels


class FirstPercent(LabelNoise):
    """Flips the first share of the training samples in the order of the corpus; nothing is drawn [tax, text data].

    Without ``from_class`` the first samples of any class are flipped (the paper's symmetric noise: 5, 10 or 20 %),
    with it the first samples of that class alone (asymmetric: positives to negatives). In a corpus sorted by class the
    former touches the first classes only, as published.

    Args:
        rate: share of the samples (of ``from_class``, where given) that are flipped, from 0 to 1; the number is rounded
            to the nearest.
        from_class: the class whose samples are flipped; null for all classes.
        to_class: the label they get; null for the next class (the last class gets the first), which of two classes is
            the other one. Only together with ``from_class``.

    Raises:
        ValueError: if ``rate`` is not a share or the two classes contradict each other.
    """

    def __init__(self, rate: float, from_class: int | None = None, to_class: int | None = None) -> None:
        check_rate("rate", rate)
        if to_class is not None and from_class is None:
            raise ValueError(f"to_class={to_class} needs from_class. Name the class whose labels are flipped as well.")
        if to_class is not None and to_class == from_class:
            raise ValueError(f"to_class={to_class} equals from_class, which flips nothing. Name another class.")
        self.rate = rate
        self.from_class = from_class
        self.to_class = to_class

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Returns the labels with the first share flipped, first in the order of ``index``."""
        for name, value in (("from_class", self.from_class), ("to_class", self.to_class)):
            if value is not None and not 0 <= value < num_classes:
                raise ValueError(f"{name}={value} is outside 0..{num_classes - 1}. Name one of these classes.")
        order = np.argsort(index, kind="stable")
        if self.from_class is not None:
            order = order[labels[order] == self.from_class]
        first = order[: int(self.rate * len(order) + 0.5)]
        labels[first] = (labels[first] + 1) % num_classes if self.to_class is None else self.to_class
        return labels
