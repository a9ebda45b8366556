"""Noise that depends on the input."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_range, check_rate
from lightning_perturb.data.label_noise.base import LabelNoise, cumulate
from lightning_perturb.data.labels import Labels

# bounds the float64 copy of the inputs that exists at any time
_ROWS_AT_ONCE = 2048


class InstanceDependent(LabelNoise):
    """Instance-dependent noise: how likely a label flips, and to which class, varies from sample to sample.

    Sample i flips with q_i ~ N(rate, std²) truncated to [0, 1], to class j ≠ y_i with the softmax of x_i · W. W is a
    standard normal projection from the flattened clean input (raw pixel values 0..255, height x width x channel) to
    the classes.

    Args:
        rate: centre of the flip probabilities, from 0 to 1, and nearly the realized rate (truncation pulls the mean
            towards 1/2: .12 for a centre of .1 at std .1). 0 and 1 are taken exactly.
        std: spread of the flip probabilities before truncation, from 0 to 1.
        normalize: whether each pixel is standardised over the training set first. The published form (false) is raw:
            brightness decides the projection, so that nearly all flips of a class go to one class (90 to 98 % on
            CIFAR-10 with a shared projection); standardised, the largest share is about a quarter.

    Raises:
        ValueError: if ``rate`` is not a share or ``std`` is outside [0, 1].
    """

    needs_inputs = True

    def __init__(self, rate: float, std: float = 0.1, normalize: bool = False) -> None:
        check_rate("rate", rate)
        check_range("std", std, 0.0, 1.0)
        self.rate = rate
        self.std = std
        self.normalize = normalize

    @abstractmethod
    def projections(
        self, labels: Labels, width: int, num_classes: int, generator: np.random.Generator
    ) -> Iterator[tuple[Labels, npt.NDArray[np.float64]]]:
        """Yields positions of samples and their projection of shape [width, C], until every sample had its own."""

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Draws each label by one uniform number: below q_i it flips, and q_i times the softmax says where to."""
        assert inputs is not None
        flat = inputs.reshape(len(labels), math.prod(inputs.shape[1:]))
        probability = self._flip_probabilities(len(labels), generator)
        uniform = generator.random(len(labels))
        mean, scale = _pixel_statistics(flat) if self.normalize else (0.0, 1.0)
        given: Labels = labels.copy()
        for positions, weight in self.projections(labels, flat.shape[1], num_classes, generator):
            # only what flips needs its projection
            flipped = positions[uniform[positions] < probability[positions]]
            for start in range(0, len(flipped), _ROWS_AT_ONCE):
                rows = flipped[start : start + _ROWS_AT_ONCE]
                scores = ((flat[rows].astype(np.float64) - mean) / scale) @ weight
                given[rows] = _draw_other(scores, labels[rows], uniform[rows] / probability[rows])
        return given

    def _flip_probabilities(self, number: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draws q of shape [number] from the truncated normal, by redrawing what falls outside."""
        if self.std == 0.0 or self.rate in (0.0, 1.0):
            return np.full(number, float(self.rate))
        drawn = generator.normal(self.rate, self.std, size=number)
        while (outside := np.flatnonzero((drawn < 0.0) | (drawn > 1.0))).size:
            drawn[outside] = generator.normal(self.rate, self.std, size=outside.size)
        return np.asarray(drawn, dtype=np.float64)


class InstanceShared(InstanceDependent):
    """Instance-dependent noise with one projection for all classes [erat, narl: what their experiments ran].

    Args:
        rate: centre of the flip probabilities, from 0 to 1, and nearly the realized rate (truncation pulls the mean
            towards 1/2: .12 for a centre of .1 at std .1). 0 and 1 are taken exactly.
        std: spread of the flip probabilities before truncation, from 0 to 1.
        normalize: whether each pixel is standardised over the training set first. The published form (false) is raw
            and sends nearly all flips of a class to one class (90 to 98 % on CIFAR-10).
    """

    def projections(
        self, labels: Labels, width: int, num_classes: int, generator: np.random.Generator
    ) -> Iterator[tuple[Labels, npt.NDArray[np.float64]]]:
        """Yields all samples with one projection."""
        yield np.arange(len(labels)), generator.standard_normal((width, num_classes))


class InstancePerClass(InstanceDependent):
    """Instance-dependent noise with a projection of its own for each true class [part-dependent noise, cited by erat].

    Args:
        rate: centre of the flip probabilities, from 0 to 1, and nearly the realized rate (truncation pulls the mean
            towards 1/2: .12 for a centre of .1 at std .1). 0 and 1 are taken exactly.
        std: spread of the flip probabilities before truncation, from 0 to 1.
        normalize: whether each pixel is standardised over the training set first. The published form (false) is raw,
            where the flips of a class mostly go to a few classes.
    """

    def projections(
        self, labels: Labels, width: int, num_classes: int, generator: np.random.Generator
    ) -> Iterator[tuple[Labels, npt.NDArray[np.float64]]]:
        """Yields the samples of each class with its projection; drawn for absent classes too, so that none shifts."""
        for c in range(num_classes):
            yield np.flatnonzero(labels == c), generator.standard_normal((width, num_classes))


def _draw_other(
    scores: npt.NDArray[np.float64], labels: Labels, uniform: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Draws a class other than the label from the softmax of the scores, by one uniform number in [0, 1) per row."""
    if not np.isfinite(scores).all():
        raise ValueError("inputs hold values that are not finite. Replace NaN and infinity before the noise is drawn.")
    scores[np.arange(len(labels)), labels] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    cumulated = cumulate(weights / weights.sum(axis=1, keepdims=True))
    # a quotient of two floats may round up to 1
    below_one = np.minimum(uniform, np.nextafter(1.0, 0.0))
    drawn: npt.NDArray[np.int64] = np.argmax(cumulated > below_one[:, None], axis=1)
    return drawn


def _pixel_statistics(flat: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each column; 1 in place of the deviation of a constant column."""
    if not len(flat):
        return np.zeros(flat.shape[1]), np.ones(flat.shape[1])
    mean = flat.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(flat), _ROWS_AT_ONCE):
        squares += ((flat[start : start + _ROWS_AT_ONCE] - mean) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / len(flat))
    return mean, np.where(deviation > 0.0, deviation, 1.0)
