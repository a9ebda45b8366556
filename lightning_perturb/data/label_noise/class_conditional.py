"""Noise by a transition matrix that any data set allows."""

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.label_noise.base import ClassConditional, Rated
from lightning_perturb.data.label_noise.files import existing, suffix_of


class Symmetric(Rated):
    """Symmetric noise without the true class: every other class with rate/(C-1).

    The realized noise rate is the rate itself. Sources that include the true class: ``Uniform``.

    Args:
        rate: share of labels that are wrong, from 0 to 1.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns 1 - rate on the diagonal and rate/(C-1) beside it, shape [C, C]."""
        matrix = np.full((num_classes, num_classes), self.rate / (num_classes - 1))
        np.fill_diagonal(matrix, 1.0 - self.rate)
        return matrix


class Uniform(Rated):
    """Uniform noise with the true class: a drawn label is any class, the true one too [tax "random", narl].

    The realized noise rate is rate · (1 - 1/C).

    Args:
        rate: share of labels that are drawn anew, from 0 to 1.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns (1 - rate) · I + rate/C, shape [C, C]."""
        return np.eye(num_classes) * (1.0 - self.rate) + self.rate / num_classes


class PairFlip(Rated):
    """Pair noise: a class turns into the next one in the list of classes, the last into the first [tax "pair", erat].

    Args:
        rate: share of labels that are wrong, from 0 to 1.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns 1 - rate on the diagonal and the rate at (y, y+1 mod C), shape [C, C]."""
        return self.spread(((np.arange(num_classes) + 1) % num_classes)[:, None])


class Flip(Rated):
    """Each class turns into one other class, drawn at random per class [narl].

    Args:
        rate: share of labels that are wrong, from 0 to 1.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns 1 - rate on the diagonal and the rate at one random place of each row, shape [C, C]."""
        shift = generator.integers(1, num_classes, size=num_classes)
        return self.spread(((np.arange(num_classes) + shift) % num_classes)[:, None])


class Flip2(Rated):
    """Each class turns into two other classes, drawn at random per class, with half the rate each [iada].

    Args:
        rate: share of labels that are wrong, from 0 to 1.
    """

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns 1 - rate on the diagonal and rate/2 at two random places of each row, shape [C, C].

        Raises:
            ValueError: if there are fewer than 3 classes.
        """
        if num_classes < 3:
            raise ValueError(f"num_classes={num_classes}: Flip2 needs two other classes. Use Flip with 2 classes.")
        first = generator.integers(1, num_classes, size=num_classes)
        second = generator.integers(1, num_classes - 1, size=num_classes)
        # the second draw skips the first, so that all pairs are equally likely
        second += second >= first
        return self.spread((np.arange(num_classes)[:, None] + np.stack([first, second], axis=1)) % num_classes)


class TransitionMatrix(ClassConditional):
    """Noise by a transition matrix of your own.

    Args:
        matrix: rows of P(given label | true label), each summing to 1, as a list of C lists of C numbers, or the path
            of a ``.npy`` or comma-separated ``.csv`` file that holds them.
    """

    def __init__(self, matrix: list[list[float]] | str) -> None:
        self.matrix = matrix

    def transition_matrix(self, num_classes: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Returns the matrix, shape [C, C].

        Raises:
            ValueError: if the matrix is not C x C or a row is not a distribution.
            FileNotFoundError: if its file is missing.
        """
        matrix = _read_matrix(self.matrix) if isinstance(self.matrix, str) else _as_matrix(self.matrix)
        if matrix.shape != (num_classes, num_classes):
            raise ValueError(
                f"matrix has shape {matrix.shape} for num_classes={num_classes}. Give one row and one column per class."
            )
        sums = matrix.sum(axis=1)
        # written so that a NaN is caught too
        wrong = np.flatnonzero(~((np.abs(sums - 1.0) <= 1e-6) & (matrix >= 0.0).all(axis=1)))
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(
                f"matrix row {row} sums to {sums[row]:.6g} with smallest entry {matrix[row].min():.6g}. Each row must "
                "hold probabilities of at least 0 that sum to 1 (row: true class, column: given class)."
            )
        normalized: npt.NDArray[np.float64] = matrix / sums[:, None]
        return normalized


def _as_matrix(rows: list[list[float]]) -> npt.NDArray[np.float64]:
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"matrix={rows!r} is not a table of numbers. Give C rows of C numbers each.") from error


def _read_matrix(name: str) -> npt.NDArray[np.float64]:
    suffix = suffix_of("matrix", name, (".npy", ".csv"))
    path = existing("matrix", name, "the transition matrix: C rows of C probabilities")
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        return np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f"matrix={name!r} holds no table of numbers ({error}). Save C rows of C numbers.") from error
