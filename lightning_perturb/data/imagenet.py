"""ImageNet (ILSVRC2012) and Tiny-ImageNet as they are published."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_perturb.checks import check_positive
from lightning_perturb.data.image_files import class_folders, image_paths
from lightning_perturb.data.image_folder import FolderListing, ImageFolder
from lightning_perturb.data.image_lists import read_list
from lightning_perturb.data.lazy_images import LazyImages, Listing, warn_of_other_numbers

_TINY_CLASSES = 200


class ImageNet(LazyImages):
    """ImageNet (ILSVRC2012): 1 281 167 training images of 1000 classes; its 50 000 validation images are the test.

    Class c is the c-th of the sorted folders in ``train/``. Nothing is decoded before it is served.

    Args:
        root: Folder with ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``.
        val_list: Where the images lie flat in ``val/``, as the archive unpacks them: a list of them, one
            ``file_name class_id`` on each line (relative to ``val/``, ids by sorted wnid, from 0). None where each
            class has its folder.
        num_classes: Number of class folders; another than 1000 for a part of the classes.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 1_281_167, "test": 50_000}

    def __init__(self, root: str, val_list: str | None = None, num_classes: int = 1000, **kwargs: Any) -> None:
        check_positive("num_classes", num_classes)
        super().__init__(root, **kwargs)
        self.val_list = val_list
        self._classes = num_classes
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """As given."""
        return self._classes

    @property
    def class_names(self) -> list[str]:
        """The wnids, once a split was read."""
        return self._names or super().class_names

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and classes of a split.

        Raises:
            FileNotFoundError: If the folder or the list does not exist.
            ValueError: If the folders are not those of the classes, or a line of the list does not fit.
        """
        if split == "val":
            return None
        names = self._wnids()
        if split == "train":
            return _by_folder(Path(self.root) / "train", names)
        folder = Path(self.root) / "val"
        if self.val_list is not None:
            remedy = "Write one 'file_name class_id' on each of its lines."
            return read_list("val_list", Path(self.val_list), folder, self.num_classes, remedy)
        present = class_folders(folder) if folder.is_dir() else []
        if present != names:
            only_one = sorted(set(present) ^ set(names))[0]
            raise (ValueError if present else FileNotFoundError)(
                f"{folder} has {len(present)} class folders and {self.root}/train {len(names)}; only one of them has "
                f"{only_one}. Put each validation image into {folder}/<wnid>/, or leave them flat and give val_list."
            )
        return _by_folder(folder, names)

    def _wnids(self) -> list[str]:
        if self._names is None:
            train = Path(self.root) / "train"
            names = class_folders(train) if train.is_dir() else []
            if not names:
                raise FileNotFoundError(
                    f"root={self.root!r} has no class folders in train/. Unpack ILSVRC2012_img_train.tar, and the "
                    f"archives in it, so that {train}/<wnid>/*.JPEG exist."
                )
            if len(names) != self.num_classes:
                raise ValueError(
                    f"{train} has {len(names)} class folders, not {self.num_classes}. Unpack the archives of all "
                    "classes, or set num_classes to their number."
                )
            self._names = names
        return self._names


def _by_folder(folder: Path, names: list[str]) -> Listing:
    paths: list[str] = []
    ends = []
    for name in names:
        paths += sorted(image_paths(str(folder / name)))
        ends.append(len(paths))
    labels = np.repeat(np.arange(len(names)), np.diff([0, *ends]))
    return Listing(paths, labels, str(folder))


class TinyImageNet(ImageFolder):
    """Tiny-ImageNet: 100 000 training images of 64 x 64 in 200 classes; its 10 000 validation images are the test.

    The published test images have no labels. Every file is decoded once, see
    :class:`~lightning_perturb.data.ImageFolder`.

    Args:
        root: The folder ``tiny-imagenet-200``, with ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` and
            ``val/val_annotations.txt``.
        size: Height and width of the images after decoding.
        **kwargs: Arguments of :class:`~lightning_perturb.data.ImageFolder`.
    """

    published = {"train": 100_000, "test": 10_000}

    def __init__(self, root: str, size: int = 64, **kwargs: Any) -> None:
        super().__init__(root, size=size, **kwargs)

    @property
    def num_classes(self) -> int:
        """Two hundred."""
        return _TINY_CLASSES

    @property
    def class_names(self) -> list[str]:
        """The wnids, sorted: class c is the c-th.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If there are not 200.
        """
        names = super().class_names
        if len(names) != _TINY_CLASSES:
            raise ValueError(
                f"{self.root}/train has {len(names)} class folders, not {_TINY_CLASSES}. root must be the folder "
                "tiny-imagenet-200 of the unpacked archive."
            )
        return names

    def _has(self, split: str) -> bool:
        return split != "val"

    def _listing(self, split: str) -> FolderListing:
        listing = super()._listing("train") if split == "train" else self._annotated()
        warn_of_other_numbers(type(self), split, len(listing.files), self.published[split], str(self.root))
        return listing

    def _annotated(self) -> FolderListing:
        """The validation images, whose classes stand in a table: file name, wnid, and four corners of a box."""
        path = Path(self.root) / "val" / "val_annotations.txt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist. root={self.root!r} must be the folder tiny-imagenet-200 of the unpacked "
                "archive."
            )
        ids = {name: c for c, name in enumerate(self.class_names)}
        files, labels = [], []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            parts = line.split()
            if len(parts) < 2 or parts[1] not in ids:
                raise ValueError(
                    f"{path}, line {number}: {line!r} is not 'file_name wnid' with the wnid of a folder in train/. "
                    "Take the file of the archive."
                )
            files.append(str(path.parent / "images" / parts[0]))
            labels.append(ids[parts[1]])
        missing = [file for file in files if not Path(file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} does not exist, but {path} lists it ({len(missing)} of {len(files)} are missing). "
                "Unpack the archive anew."
            )
        return FolderListing.of(files, labels, path.parent)
