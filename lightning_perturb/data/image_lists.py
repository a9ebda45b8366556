"""Text lists of image files and class ids: those of long-tailed ImageNet, Places and iNaturalist, and your own."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_perturb.data.labels import check_labels
from lightning_perturb.data.lazy_images import LazyImages, Listing

_INATURALIST_MEAN = (0.466, 0.471, 0.380)
_INATURALIST_STD = (0.195, 0.194, 0.192)


def read_list(argument: str, path: Path, root: Path, classes: int | None, remedy: str) -> Listing:
    """Reads a list of image files, one ``relative/path class_id`` on each line.

    Args:
        argument: What the list is called where it does not exist.
        path: The list.
        root: Folder that its paths are relative to.
        classes: How many classes there are; None where that is not known.
        remedy: What to do where the list does not exist.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not a path and a number, or a class id is too large.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: {path} does not exist. {remedy}")
    paths: list[str] = []
    labels: list[int] = []
    # utf-8-sig: editors put a mark in front
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            parts = line.rsplit(maxsplit=1)
            if not parts:
                continue
            if len(parts) != 2 or not parts[1].isdecimal():
                raise ValueError(
                    f"{path}, line {number}: {line.strip()!r} is not 'relative/path class_id'. Repair the list."
                )
            paths.append(str(root / parts[0]))
            labels.append(int(parts[1]))
    ids = np.asarray(labels, dtype=np.int64)
    if classes is not None:
        check_labels(ids, classes, f"{path}: label")
    return Listing(paths, ids, str(path))


class TextLists(LazyImages):
    """Image files that text files list; a subclass names the files, in :attr:`lists`.

    Args:
        root: Folder that the paths in the lists are relative to.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        #: list file by split
        self.lists: dict[str, str | None] = {}
        self._classes: int | None = None
        self._listed: dict[str, Listing] = {}

    @property
    def num_classes(self) -> int:
        """As given, or the largest id of the training list + 1."""
        if self._classes is None:
            listing = self.listing("train")
            assert listing is not None
            if not listing.paths:
                raise ValueError(f"{listing.source} lists no image for the train split. Give a list with images.")
            self._classes = int(listing.labels.max()) + 1
        return self._classes

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and class ids of a list.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a line is not a path and a number, or a class id is too large.
        """
        return self._listing(split)

    def _listing(self, split: str) -> Listing | None:
        name = self.lists.get(split)
        if name is None:
            return None
        if split not in self._listed:
            self._listed[split] = self._parsed(split, Path(name))
        return self._listed[split]

    def _parsed(self, split: str, path: Path) -> Listing:
        return read_list(f"{split}_list", path, Path(self.root), self._classes, self._remedy(path))

    def _remedy(self, path: Path) -> str:
        return "Write one 'relative/path class_id' on each of its lines."


class ImageLists(TextLists):
    """Image files that text files list, one ``relative/path class_id`` on each line.

    Args:
        root: Folder that the paths in the lists are relative to.
        train_list: The list of training images.
        val_list: The list of validation images; None for none (``val_size`` carves some from training).
        test_list: The list of test images; None for none.
        num_classes: Number of classes; None counts those of the training list.
        meta_list: A list of clean images for meta-learning; None for none (``meta_size`` carves some from training).
            Those that the training list has too are taken out of it.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    def __init__(
        self,
        root: str,
        train_list: str,
        val_list: str | None = None,
        test_list: str | None = None,
        num_classes: int | None = None,
        meta_list: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.brings_meta = meta_list is not None
        super().__init__(root, **kwargs)
        self.lists = {"train": train_list, "val": val_list, "test": test_list, "meta": meta_list}
        self._classes = num_classes

    def meta_listing(self) -> Listing | None:
        """Files and class ids of the list of clean images."""
        return self._listing("meta")


class PublishedLists(TextLists):
    """Image files with published lists; a subclass names them.

    Args:
        root: Folder that holds the images as published.
        lists: Folder of the published lists; None takes ``root``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    #: names of the lists by split
    files: ClassVar[dict[str, str]] = {}
    classes: ClassVar[int] = 0

    def __init__(self, root: str, lists: str | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.lists = {split: str(Path(lists or root) / name) for split, name in self.files.items()}
        self._classes = self.classes

    def _remedy(self, path: Path) -> str:
        return (
            f"Put the published lists of {type(self).__name__} ({', '.join(dict.fromkeys(self.files.values()))}) into "
            f"{path.parent}, or give their folder as lists."
        )


class ImageNetLT(PublishedLists):
    """ImageNet-LT: 115 846 long-tailed training images of 1000 classes; 20 validation and 50 test images of each.

    Args:
        root: Folder of ILSVRC2012 with ``train/<wnid>/*.JPEG`` and ``val/*.JPEG``, as the lists name them.
        lists: Folder of ``ImageNet_LT_train.txt``, ``ImageNet_LT_val.txt`` and ``ImageNet_LT_test.txt``; None takes
            ``root``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    files = {split: f"ImageNet_LT_{split}.txt" for split in ("train", "val", "test")}
    classes = 1000
    published = {"train": 115_846, "val": 20_000, "test": 50_000}


class PlacesLT(PublishedLists):
    """Places-LT: 62 500 long-tailed training images of 365 classes; 20 validation and 100 test images of each.

    Args:
        root: Folder of Places-365 that the lists' paths are relative to.
        lists: Folder of ``Places_LT_train.txt``, ``Places_LT_val.txt`` and ``Places_LT_test.txt``; None takes ``root``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    files = {split: f"Places_LT_{split}.txt" for split in ("train", "val", "test")}
    classes = 365
    published = {"train": 62_500, "val": 7_300, "test": 36_500}


class INaturalist2018(PublishedLists):
    """iNaturalist 2018: 437 513 long-tailed training images of 8142 species; the 24 426 validation images are the test.

    Args:
        root: Folder with ``train_val2018/<super>/<id>/*.jpg``.
        lists: Folder of ``iNaturalist18_train.txt`` and ``iNaturalist18_val.txt``; None takes ``root``.
        mean: Mean of red, green and blue in [0, 1].
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    files = {"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"}
    classes = 8142
    published = {"train": 437_513, "test": 24_426}

    def __init__(
        self,
        root: str,
        lists: str | None = None,
        mean: tuple[float, float, float] = _INATURALIST_MEAN,
        std: tuple[float, float, float] = _INATURALIST_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, lists, mean=mean, std=std, **kwargs)
