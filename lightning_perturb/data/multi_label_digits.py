"""Several of scikit-learn's digits on one canvas, with a long tail: an embedded multi-label set."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.data.base import PerturbationDataModule
from lightning_perturb.data.labels import Labels

_CLASSES = 10
_CELL = 10  # a digit of 8 x 8 with room to move
_SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.75), "test": (0.75, 1.0)}


class MultiLabelDigits(PerturbationDataModule):
    """Canvases of 20 x 20 grey pixels with one to four different digits; a sample's labels are the digits on it.

    Each digit stands in a quarter of its own, moved by up to two pixels. In training the digits are long-tailed: the
    k-th most frequent is drawn with a weight of ratio^(-k/9). Which digit is how frequent has nothing to do with its
    number. Validation and test canvases draw all digits alike, and their own scikit-learn images: no image is in two
    splits. Everything is drawn from ``canvas_seed``, whatever ``seed`` is, so that runs with other seeds compare on the
    same canvases; nothing is downloaded.

    Args:
        ratio: Weight of the most frequent digit over that of the rarest, at least 1.
        samples: Training canvases.
        val_samples: Validation canvases; their labels are never corrupted; 0 for none.
        test_samples: Test canvases.
        most: Largest number of digits on a canvas, 1 to 4; every number up to it is equally frequent.
        canvas_seed: Seed of the canvases.
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    mean = (0.122,)
    std = (0.281,)
    multi_label = True

    def __init__(
        self,
        ratio: float = 100.0,
        samples: int = 1000,
        val_samples: int = 300,
        test_samples: int = 1000,
        most: int = 4,
        canvas_seed: int = 1797,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if not 1.0 <= ratio < np.inf:
            raise ValueError(f"ratio={ratio!r} must be at least 1: the most frequent digit over the rarest.")
        if most not in (1, 2, 3, 4):
            raise ValueError(f"most={most!r} does not fit the four quarters of a canvas. Choose 1, 2, 3 or 4.")
        check_positive("samples", samples)
        check_positive("val_samples", val_samples, zero=True)
        check_positive("test_samples", test_samples)
        self.ratio = ratio
        self.sizes = {"train": samples, "val": val_samples, "test": test_samples}
        self.most = most
        self.canvas_seed = canvas_seed

    @property
    def num_classes(self) -> int:
        """Ten."""
        return _CLASSES

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """uint8 canvases ``[N, 1, 20, 20]`` and multi-hot labels ``[N, 10]``.

        Raises:
            ValueError: If a digit is on no training canvas.
        """
        if not self.sizes[split]:
            return None
        # the class order first, and then one stream for each split: more training canvases must not move the test
        order = np.random.default_rng([self.canvas_seed, 0]).permutation(_CLASSES)
        weights = np.ones(_CLASSES)
        if split == "train":
            weights[order] = self.ratio ** (-np.arange(_CLASSES) / (_CLASSES - 1))
        generator = np.random.default_rng([self.canvas_seed, 1, *split.encode()])
        labels = _label_sets(self.sizes[split], self.most, weights / weights.sum(), generator)
        absent = np.flatnonzero(labels.sum(0) == 0)
        if split == "train" and len(absent):
            raise ValueError(
                f"samples={self.sizes[split]} leaves the digit {int(absent[0])} on no training canvas "
                f"({len(absent)} such digits). Raise samples or lower ratio={self.ratio:g}."
            )
        return torch.from_numpy(_canvases(labels, _images(split, self.canvas_seed), generator)), labels


def _label_sets(
    samples: int, most: int, weights: npt.NDArray[np.float64], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Multi-hot rows, each a weighted draw without replacement: the largest of random keys (Efraimidis-Spirakis)."""
    keys = np.log(generator.random((samples, _CLASSES))) / weights
    place = np.argsort(np.argsort(-keys, axis=1), axis=1)
    return (place < generator.integers(1, most + 1, size=(samples, 1))).astype(np.int64)


def _images(split: str, seed: int) -> list[npt.NDArray[np.uint8]]:
    """The split's own images of each digit."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    pixels = np.round(images * (255.0 / 16.0)).astype(np.uint8).reshape(-1, 8, 8)
    shuffled = np.random.default_rng([seed, 2]).permutation(len(digits))
    low, high = _SHARES[split]
    own = []
    for digit in range(_CLASSES):
        mine = shuffled[digits[shuffled] == digit]
        own.append(pixels[mine[round(low * len(mine)) : round(high * len(mine))]])
    return own


def _canvases(
    labels: npt.NDArray[np.int64], images: list[npt.NDArray[np.uint8]], generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    canvases = np.zeros((len(labels), 1, 2 * _CELL, 2 * _CELL), dtype=np.uint8)
    quarters = np.argsort(generator.random((len(labels), 4)), axis=1)
    shifts = generator.integers(0, _CELL - 8 + 1, size=(len(labels), 4, 2))
    draws = generator.random((len(labels), 4))
    for i, row in enumerate(labels):
        for k, digit in enumerate(np.flatnonzero(row)):
            top, left = _CELL * np.asarray(divmod(quarters[i, k], 2)) + shifts[i, k]
            own = images[digit]
            canvases[i, 0, top : top + 8, left : left + 8] = own[int(draws[i, k] * len(own))]
    return canvases
