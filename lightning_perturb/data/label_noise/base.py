"""What every label noise is, and the family that a transition matrix describes."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_rate
from lightning_perturb.data.labels import Labels, check_labels, check_multi_hot


class LabelNoise(ABC):
    """Turns the true labels of a training set into the labels that training is given.

    A noise overrides ``corrupt``; the call checks what comes in and never changes it.

    Attributes:
        needs_inputs: whether the noise looks at the clean inputs.
        multi_label: whether it is for multi-hot labels, shape [N, C], instead of class ids, shape [N].
    """

    needs_inputs: bool = False
    multi_label: bool = False

    def __call__(
        self,
        labels: npt.ArrayLike,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None = None,
        index: npt.NDArray[np.integer[Any]] | None = None,
        total: int | None = None,
    ) -> Labels:
        """Draws the given labels, all at once.

        Args:
            labels: true class ids, shape [N]; multi-hot labels, shape [N, C], where ``multi_label``.
            num_classes: number of classes C, at least 2.
            generator: the only source of randomness; advanced.
            inputs: clean inputs, shape [N, ...]: uint8 pixels (NHWC) or float features. Only where ``needs_inputs``.
            index: position of each sample in the full original training set, shape [N]; None for 0..N-1.
            total: size of the full original training set; None for N without ``index`` and for unknown with it.

        Returns:
            New int64 labels of the same shape.

        Raises:
            ValueError: if labels, inputs or index do not fit together or the noise does not fit the classes.
        """
        ids = self._checked(labels, num_classes)
        if num_classes < 2:
            raise ValueError(
                f"num_classes={num_classes} leaves no other class to flip to. Label noise needs at least 2."
            )
        if index is None:
            index, total = np.arange(len(ids)), len(ids) if total is None else total
        if len(index) != len(ids):
            raise ValueError(f"index has {len(index)} entries for {len(ids)} labels. Give one position per label.")
        if self.needs_inputs and inputs is None:
            raise ValueError(
                f"{type(self).__name__} depends on the inputs, but inputs=None. Give the clean inputs of the labels, "
                "or choose a noise that looks at labels only, such as Symmetric."
            )
        if self.needs_inputs and inputs is not None and len(inputs) != len(ids):
            raise ValueError(f"inputs has {len(inputs)} entries for {len(ids)} labels. Give one input per label.")
        return self.corrupt(ids.copy(), num_classes, generator, inputs, np.asarray(index, dtype=np.int64), total)

    def _checked(self, labels: npt.ArrayLike, num_classes: int) -> Labels:
        if self.multi_label and np.ndim(labels) == 1:
            raise ValueError(
                f"{type(self).__name__} is for multi-hot labels, but these are class ids. Choose a noise that turns a "
                "class into another, such as Symmetric."
            )
        if not self.multi_label and np.shape(labels)[1:] == (num_classes,):
            raise ValueError(
                f"{type(self).__name__} turns a class into another, but these labels are multi-hot. Choose "
                "MultiLabelSymmetric, MissingLabels or FalsePositives."
            )
        return check_multi_hot(labels, num_classes) if self.multi_label else check_labels(labels, num_classes)

    @abstractmethod
    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Returns the given labels; arguments as in the call, checked, and ``labels`` is a copy to work on."""


class ClassConditional(LabelNoise):
    """Noise that depends on the true class alone: row y of a matrix is the distribution of the given label."""

    @abstractmethod
    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns T of shape [C, C] with T[y, j] = P(given j | true y); its rows sum to 1.

        Args:
            num_classes: number of classes C.
            generator: used only where the matrix itself is random.
        """

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Draws each label from the row of its class, by one uniform number per sample."""
        cumulated = cumulate(self.transition_matrix(num_classes, generator))
        uniform = generator.random(len(labels))
        given = np.empty_like(labels)
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=num_classes))
        for c, rows in enumerate(np.split(order, ends[:-1])):
            given[rows] = np.searchsorted(cumulated[c], uniform[rows], side="right")
        return given


class Rated(ClassConditional):
    """Class-conditional noise with one rate.

    Args:
        rate: share of labels that the noise draws anew, from 0 to 1.

    Raises:
        ValueError: if ``rate`` is not a share.
    """

    def __init__(self, rate: float) -> None:
        check_rate("rate", rate)
        self.rate = rate

    def spread(self, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Returns the matrix that keeps a label with 1 - rate and shares the rate equally among its targets.

        Args:
            targets: the classes that each class turns into, shape [C, number of targets]; a class that is its own
                target keeps its labels.
        """
        num_classes, number = targets.shape
        matrix = np.eye(num_classes) * (1.0 - self.rate)
        np.add.at(matrix, (np.arange(num_classes)[:, None], targets), self.rate / number)
        return matrix


def cumulate(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns cumulated probabilities along the last axis, exactly 1 from the last possible class on.

    The first entry above a uniform number in [0, 1) is then always a class of positive probability, whatever the
    rounding of the sum.
    """
    cumulated = np.minimum(np.cumsum(probabilities, axis=-1), 1.0)
    possible_later = np.cumsum(probabilities[..., ::-1] > 0, axis=-1)[..., ::-1] - (probabilities > 0) > 0
    return np.where(possible_later, cumulated, 1.0)
