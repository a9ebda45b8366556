"""Scikit-learn's handwritten digits: embedded, real, 1 797 images of 8 x 8."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.data.base import Labels, PerturbationDataModule, hold_out


class Digits(PerturbationDataModule):
    """Scikit-learn's digits, 1 797 grey images of 8 x 8, ten classes; nothing is downloaded.

    Args:
        test_size: Share or count of the samples that is kept for the test; the same samples for every ``seed``.
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    mean = (0.306,)
    std = (0.376,)

    def __init__(self, test_size: float = 0.25, batch_size: int = 64, **kwargs: Any) -> None:
        check_positive("test_size", test_size)
        super().__init__(batch_size=batch_size, **kwargs)
        self.test_size = test_size

    @property
    def num_classes(self) -> int:
        """Ten."""
        return 10

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """uint8 images ``[N, 1, 8, 8]`` and labels."""
        if split == "val":
            return None
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        labels = labels.astype(np.int64)
        # its own seed: runs with other seeds must be compared on the same test samples
        train, test = hold_out("test_size", labels, 10, self.test_size, np.random.default_rng(1797))
        chosen = train if split == "train" else test
        pixels = np.round(images[chosen] * (255.0 / 16.0)).astype(np.uint8).reshape(-1, 1, 8, 8)
        return torch.from_numpy(pixels), labels[chosen]
