"""Handwritten digits whose colour goes with their class in training and against it in the test: subpopulation shift."""

import os
from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from lightning_perturb.checks import check_rate
from lightning_perturb.data.base import Labels, PerturbationDataModule

Split = Literal["train", "val", "test"]


class Colored(PerturbationDataModule):
    """Grey digits that are coloured: the class is whether the digit is at least 5, the domain is its colour.

    Some classes are flipped, so that the digit tells less of them than the colour does in training. A digit is red
    where its class (after the flip) is 0 and green where it is 1, but for the share of each split that has the other
    colour. Flips and colours come from ``color_seed``, whatever ``seed`` is, so that runs with other seeds compare on
    the same images. The flipped classes are the true labels of this set; ``label_noise`` comes on top.

    Args:
        label_flip: Share of classes that are flipped, in every split; published 0.25.
        train_flip: Share of training images that have the colour of the other class; published 0.2.
        val_flip: That of validation images; published 0.5.
        test_flip: That of test images; published 0.9.
        color_seed: Seed of flips and colours. The published code draws without one.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`, but no ``val_size``.
    """

    def __init__(
        self,
        label_flip: float = 0.25,
        train_flip: float = 0.2,
        val_flip: float = 0.5,
        test_flip: float = 0.9,
        color_seed: int = 1797,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_rate("label_flip", label_flip)
        self.label_flip = label_flip
        self.color_flip = {"train": train_flip, "val": val_flip, "test": test_flip}
        for split, flip in self.color_flip.items():
            check_rate(f"{split}_flip", flip)
        self.color_seed = color_seed

    @abstractmethod
    def digits(self, split: Split) -> Labels:
        """The digits of a split ``[N]``."""

    @abstractmethod
    def grey(self, split: Split) -> Tensor:
        """The images of a split, uint8 ``[N, H, W]``."""

    @property
    def num_classes(self) -> int:
        """Two."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """The digits of each class."""
        return ["0-4", "5-9"]

    @property
    def domain_names(self) -> list[str]:
        """The colours."""
        return ["red", "green"]

    def read(self, split: Split) -> tuple[Tensor, Labels] | None:
        """uint8 images ``[N, 3, H, W]``, red or green on black, and classes."""
        classes, colors = self._classes_and_colors(split)
        grey = self.grey(split)
        images = torch.zeros(len(grey), 3, *grey.shape[1:], dtype=torch.uint8)
        images[torch.arange(len(grey)), torch.from_numpy(colors)] = grey
        return images, classes

    def read_domains(self, split: Split) -> Labels:
        """0 for red, 1 for green ``[N]``."""
        return self._classes_and_colors(split)[1]

    def _classes_and_colors(self, split: Split) -> tuple[Labels, Labels]:
        digits = self.digits(split)
        # one stream for each split and use: another share of colours must not move the classes
        flipped, other = (
            np.random.default_rng([self.color_seed, use, *split.encode()]).random(len(digits)) < share
            for use, share in enumerate((self.label_flip, self.color_flip[split]))
        )
        classes = (digits >= 5) ^ flipped
        return classes.astype(np.int64), (classes ^ other).astype(np.int64)


class ColoredMNIST(Colored):
    """Coloured MNIST (CMNIST) as in LISA (Yao et al., 2022), of MNIST's 60 000 training images.

    Training is on the first 30 000, validation on the next 10 000, the test on the last 20 000. Colour and class agree
    in 80, 50 and 10 % of them.

    Args:
        root: Folder that holds ``MNIST/raw``, as torchvision stores it.
        download: Fetch the files when they are missing.
        **kwargs: Arguments of :class:`~lightning_perturb.data.colored.Colored`.
    """

    mean = (0.1307, 0.1307, 0.0)
    std = (0.3081, 0.3081, 0.3081)

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.download = download

    def prepare_data(self) -> None:
        """Fetches the files, where ``download`` asks for it."""
        if self.download:
            MNIST(self.root, train=True, download=True)

    def digits(self, split: Split) -> Labels:
        """Of the split's part of the training images.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If it is damaged, or of another number of images.
        """
        return self._part("labels-idx1", read_label_file, split).numpy().astype(np.int64)

    def grey(self, split: Split) -> Tensor:
        """The split's part of the training images."""
        return self._part("images-idx3", read_image_file, split)

    def _part(self, kind: str, read: Any, split: Split) -> Tensor:
        path = os.path.join(self.root, "MNIST", "raw", f"train-{kind}-ubyte")
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"root={self.root!r} does not hold MNIST: {path} does not exist. Unpack MNIST's four files there, or "
                "set download to true."
            )
        try:
            rows = read(path)
        except Exception as error:  # torchvision raises anything, and the file must be named
            raise ValueError(f"{path} is damaged ({error}). Delete it and fetch it anew.") from error
        if len(rows) != 60_000:
            raise ValueError(f"{path} holds {len(rows)} of MNIST's 60000 training images. Delete it and fetch it anew.")
        first, last = {"train": (0, 30_000), "val": (30_000, 40_000), "test": (40_000, 60_000)}[split]
        return rows[first:last]  # type: ignore[no-any-return]


class ColoredDigits(Colored):
    """Scikit-learn's digits, 1 797 images of 8 x 8, coloured as Coloured MNIST is; nothing is downloaded.

    Half of them train, a sixth is for validation, a third for the test; the same images for every seed.

    Args:
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.colored.Colored`.
    """

    mean = (0.306, 0.306, 0.0)
    std = (0.376, 0.376, 0.376)

    def __init__(self, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)

    def digits(self, split: Split) -> Labels:
        """Of the split's images."""
        return _embedded(split)[1]

    def grey(self, split: Split) -> Tensor:
        """The split's images."""
        return torch.from_numpy(_embedded(split)[0])


def _embedded(split: Split) -> tuple[npt.NDArray[np.uint8], Labels]:
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(1797).permutation(len(digits))
    first, last = {"train": (0, 899), "val": (899, 1198), "test": (1198, 1797)}[split]
    chosen = order[first:last]
    pixels = np.round(images[chosen] * (255.0 / 16.0)).astype(np.uint8).reshape(-1, 8, 8)
    return pixels, digits[chosen].astype(np.int64)
