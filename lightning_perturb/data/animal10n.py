"""ANIMAL-10N: five pairs of animals that people take for each other."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_perturb.data.augment import Augmentation, CropFlip, RandomCrop
from lightning_perturb.data.image_files import image_paths
from lightning_perturb.data.lazy_images import LazyImages, Listing

_NAMES = (
    "cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig",
)  # fmt: skip


class Animal10N(LazyImages):
    """ANIMAL-10N: 50 000 training images of 64 x 64 in ten classes, about 8 % of whose labels are wrong.

    Nobody knows which are wrong. The labels of the 5 000 test images are right.

    Args:
        root: Folder with ``training/`` and ``testing/``, or with ``raw_image_ver/`` that has them. A file's name begins
            with its class: ``<class>_<number>.jpg``.
        size: Height and width of what the network gets.
        load_size: Height and width after decoding, at least ``size``.
        mean: Mean of red, green and blue in [0, 1].
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 50_000, "test": 5_000}

    def __init__(
        self,
        root: str,
        size: int = 64,
        load_size: int = 64,
        mean: tuple[float, float, float] = (0.6959, 0.6537, 0.6371),
        std: tuple[float, float, float] = (0.3113, 0.3192, 0.3214),
        **kwargs: Any,
    ) -> None:
        super().__init__(root, size, load_size, mean=mean, std=std, labels_known=False, **kwargs)

    @property
    def num_classes(self) -> int:
        """Ten."""
        return len(_NAMES)

    @property
    def class_names(self) -> list[str]:
        """The animals."""
        return list(_NAMES)

    def usual_augmentation(self) -> Augmentation | None:
        """Crop and flip with a padding of an eighth of the size, or a crop from the image where that is larger."""
        return CropFlip(self.size // 8) if self.load_size == self.size else RandomCrop(self.size)

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files of a split, and the classes in their names.

        Raises:
            FileNotFoundError: If the folder has no images.
            ValueError: If a name does not begin with a class.
        """
        if split == "val":
            return None
        folder = Path(self.root)
        if (folder / "raw_image_ver").is_dir():
            folder /= "raw_image_ver"
        folder /= "training" if split == "train" else "testing"
        paths = sorted(image_paths(str(folder)))
        if not paths:
            raise FileNotFoundError(
                f"{folder} has no images. root={self.root!r} must be the folder of the unpacked raw_image_ver.zip of "
                "ANIMAL-10N, with training/ and testing/."
            )
        begins = [Path(path).name.partition("_")[0] for path in paths]
        strange = next((path for path, begin in zip(paths, begins, strict=True) if not _is_class(begin)), None)
        if strange is not None:
            raise ValueError(
                f"{strange} does not begin with its class (0_ to {len(_NAMES) - 1}_). Take the images of the archive."
            )
        return Listing(paths, np.asarray(begins, dtype=np.int64), str(folder))


def _is_class(begin: str) -> bool:
    return begin.isdecimal() and int(begin) < len(_NAMES)
