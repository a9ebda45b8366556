"""CIFAR-10 and CIFAR-100 from torchvision's files."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torchvision
from torch import Tensor

from lightning_perturb.data.augment import Augmentation, CropFlip
from lightning_perturb.data.base import Labels, PerturbationDataModule


class CIFAR10(PerturbationDataModule):
    """CIFAR-10: 50 000 training and 10 000 test images of 32 x 32 in ten classes.

    Args:
        root: Folder that holds ``cifar-10-batches-py`` (the unpacked archive "CIFAR-10 python version").
        download: Fetch the archive when it is missing.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    _dataset: ClassVar[Any] = torchvision.datasets.CIFAR10
    _folder: ClassVar[str] = "cifar-10-batches-py"
    _num_classes: ClassVar[int] = 10

    def __init__(self, root: str = "data", download: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.download = download
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes

    @property
    def class_names(self) -> list[str]:
        """The published names, once a split was read."""
        return self._names or super().class_names

    def usual_augmentation(self) -> Augmentation | None:
        """The papers' crop and flip."""
        return CropFlip()

    def prepare_data(self) -> None:
        """Fetches the archive, where ``download`` asks for it."""
        if self.download:
            self._dataset(self.root, train=True, download=True)

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """uint8 images ``[N, 3, 32, 32]`` and labels.

        Raises:
            FileNotFoundError: If the files are missing or damaged.
        """
        if split == "val":
            return None
        try:
            source = self._dataset(self.root, train=split == "train", download=False)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"root={self.root!r} does not hold the files of {type(self).__name__}, or they are damaged. Unpack the "
                f"archive '{self._dataset.filename}' there, so that {self.root}/{self._folder}/ exists, "
                "or set download to true."
            ) from error
        self._names = list(source.classes)
        pixels = torch.from_numpy(np.ascontiguousarray(source.data.transpose(0, 3, 1, 2)))
        return pixels, np.asarray(source.targets, dtype=np.int64)


class CIFAR100(CIFAR10):
    """CIFAR-100: 50 000 training and 10 000 test images of 32 x 32 in a hundred classes.

    Args:
        root: Folder that holds ``cifar-100-python`` (the unpacked archive "CIFAR-100 python version").
        download: Fetch the archive when it is missing.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    _dataset: ClassVar[Any] = torchvision.datasets.CIFAR100
    _folder: ClassVar[str] = "cifar-100-python"
    _num_classes: ClassVar[int] = 100
