"""Photographs of two classes, each in two domains, in unequal numbers: Waterbirds and CelebA."""

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.augment import Augmentation
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.lazy_images import LazyImages, Listing

_PARTS = {"train": 0, "val": 1, "test": 2}


class Waterbirds(LazyImages):
    """Waterbirds (Sagawa et al., 2020): landbirds and waterbirds, each before land or water.

    In training 95 % of birds are before their own background (3498, 184, 56 and 1057 images of the four groups), in
    validation and test half of each class. The published average accuracy is ``test/train_weighted_acc``. As
    published, images are made 256 x 256, of which training and evaluation see the middle 224 x 224.

    Args:
        root: Folder with ``metadata.csv`` and the folders of images,
            ``waterbird_complete95_forest2water2`` as unpacked.
        fit: How an image becomes a square: ``stretch``, as published, or ``crop``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 4795, "val": 1199, "test": 5794}

    def __init__(
        self,
        root: str = "data/waterbird_complete95_forest2water2",
        fit: Literal["crop", "stretch"] = "stretch",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, fit=fit, **kwargs)

    @property
    def num_classes(self) -> int:
        """Two."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """The kinds of birds."""
        return ["landbird", "waterbird"]

    @property
    def domain_names(self) -> list[str]:
        """The backgrounds."""
        return ["land", "water"]

    def usual_augmentation(self) -> Augmentation | None:
        """None, as published."""
        return None

    def listing(self, split: Literal["train", "val", "test"]) -> Listing:
        """Files, kinds and backgrounds of ``metadata.csv``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is of another layout.
        """
        path = Path(self.root) / "metadata.csv"
        remedy = f"Unpack waterbird_complete95_forest2water2 and give that folder as root (now {self.root!r})."
        names, rows = _table(path, remedy)
        columns = [_column(names, name, path, remedy) for name in ("img_filename", "y", "place", "split")]
        files, kinds, places, parts = ([row[c] for row in rows] for c in columns)
        chosen = _whole(parts, 3, path, "split") == _PARTS[split]
        return Listing(
            [str(Path(self.root) / file) for file, mine in zip(files, chosen, strict=True) if mine],
            _whole(kinds, 2, path, "y")[chosen],
            str(path),
            _whole(places, 2, path, "place")[chosen],
        )


class CelebA(LazyImages):
    """CelebA (Liu et al., 2015): 202 599 faces with forty attributes; one is the class, another the domain.

    Blond hair and gender are published for subpopulation shift: of blond faces 6 % are male. As published, the middle
    178 x 178 of an image becomes 224 x 224. The lists are read as CSV (``list_attr_celeba.csv`` and
    ``list_eval_partition.csv``) or as text (``.txt``, as torchvision stores them), whichever are there.

    Args:
        root: Folder with the two lists and ``img_align_celeba/``.
        target: The attribute that is the class.
        domain: The attribute that is the domain.
        load_size: Height and width after decoding.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 162_770, "val": 19_867, "test": 19_962}

    def __init__(
        self,
        root: str = "data/celeba",
        target: str = "Blond_Hair",
        domain: str = "Male",
        load_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, load_size=load_size, **kwargs)
        if target == domain:
            raise ValueError(f"target={target!r} and domain={domain!r} are the same attribute. Name two.")
        self.target = target
        self.domain = domain

    @property
    def num_classes(self) -> int:
        """Two: without and with the attribute."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """Without and with the attribute."""
        return [f"not {self.target}", self.target]

    @property
    def domain_names(self) -> list[str]:
        """Without and with the other attribute."""
        return [f"not {self.domain}", self.domain]

    def usual_augmentation(self) -> Augmentation | None:
        """None, as published."""
        return None

    def listing(self, split: Literal["train", "val", "test"]) -> Listing:
        """Files and both attributes of a part.

        Raises:
            FileNotFoundError: If the lists do not exist.
            ValueError: If they are of another layout, do not fit each other, or lack an attribute.
        """
        root = Path(self.root)
        remedy = f"Put list_attr_celeba and list_eval_partition of CelebA (.csv or .txt) into {self.root!r}."
        attributes, partition = (_either(root / name) for name in ("list_attr_celeba", "list_eval_partition"))
        names, rows = _table(attributes, remedy)
        for given in (self.target, self.domain):
            if given not in names:
                raise ValueError(f"{attributes} has no attribute {given!r}. It has {', '.join(names[1:])}.")
        parts = {row[0]: row[1] for row in _table(partition, remedy)[1]}
        missing = [row[0] for row in rows if row[0] not in parts]
        if missing:
            raise ValueError(
                f"{partition} does not name {missing[0]} ({len(missing)} images of {attributes}). {remedy}"
            )
        chosen = _whole([parts[row[0]] for row in rows], 3, partition, "partition") == _PARTS[split]
        rows = [row for row, mine in zip(rows, chosen, strict=True) if mine]
        target, domain = (
            (_whole([row[names.index(name)] for row in rows], 2, attributes, name, low=-1) > 0).astype(np.int64)
            for name in (self.target, self.domain)
        )
        images = root / "img_align_celeba"
        # as one archive unpacks it
        images = images / "img_align_celeba" if (images / "img_align_celeba").is_dir() else images
        return Listing([str(images / row[0]) for row in rows], target, str(attributes), domain)


def _either(stem: Path) -> Path:
    text = stem.with_suffix(".txt")
    return text if text.is_file() and not stem.with_suffix(".csv").is_file() else stem.with_suffix(".csv")


def _table(path: Path, remedy: str) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and rows; of CelebA's own text files too, whose first column has no name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {remedy}")
    # utf-8-sig: spreadsheets put a mark in front
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in (csv.reader(file) if path.suffix == ".csv" else map(str.split, file)) if row]
    if path.suffix != ".csv":
        if path.stem == "list_eval_partition":
            rows.insert(0, ["image_id", "partition"])
        else:
            # the number of images comes first
            rows = [["image_id", *rows[1]], *rows[2:]] if len(rows) > 1 else []
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        wrong = next((n for n, row in enumerate(rows) if len(row) != len(rows[0])), 0)
        raise ValueError(f"{path} is no table: it is empty, or row {wrong} is not as long as the first. {remedy}")
    return rows[0], rows[1:]


def _column(names: list[str], name: str, path: Path, remedy: str) -> int:
    if name not in names:
        raise ValueError(f"{path} has no column {name!r}, but {', '.join(names)}. {remedy}")
    return names.index(name)


def _whole(cells: list[str], below: int, path: Path, name: str, low: int = 0) -> Labels:
    """Cells as whole numbers from ``low`` to ``below - 1``."""
    try:
        numbers: npt.NDArray[np.int64] = np.array([int(cell) for cell in cells], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"{path} holds something in the column {name!r} that is no whole number ({error}).") from error
    if len(numbers) and not low <= numbers.min() <= numbers.max() < below:
        raise ValueError(f"{path} holds numbers in the column {name!r} that are not in {low}..{below - 1}.")
    return numbers
