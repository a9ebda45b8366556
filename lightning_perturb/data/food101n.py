"""Food-101N: dishes from the web under the classes of Food-101, whose test images it is tested on."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_perturb.checks import check_choice
from lightning_perturb.data.lazy_images import LazyImages, Listing

_CLASSES = 101


class Food101N(LazyImages):
    """Food-101N: 310 009 training images of 101 dishes, about 20 % of whose labels are wrong.

    Which labels are wrong is known for the small part that people have looked at. The 25 250 test images are those of
    Food-101. Class c is the c-th of the sorted names.

    Args:
        root: Folder with ``Food-101N_release/`` (``images/``, ``meta/classes.txt``, ``meta/imagelist.tsv``,
            ``meta/verified_train.tsv``, ``meta/verified_val.tsv``) and ``food-101/`` (``images/``, ``meta/test.txt``),
            as the two archives unpack.
        verified: The images that people found right in one of their lists become clean samples for meta-learning, and
            leave the training set: ``val`` (4 741 were looked at) or ``train`` (52 868). None leaves all in training.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 310_009, "test": 25_250}

    def __init__(self, root: str, verified: Literal["train", "val"] | None = None, **kwargs: Any) -> None:
        if verified is not None:
            check_choice("verified", verified, ("train", "val"))
        self.brings_meta = verified is not None
        super().__init__(root, labels_known=False, **kwargs)
        self.verified = verified
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """A hundred and one."""
        return _CLASSES

    @property
    def class_names(self) -> list[str]:
        """The dishes, once a split was read."""
        return self._names or super().class_names

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and classes of a split.

        Raises:
            FileNotFoundError: If a list does not exist.
            ValueError: If it names a class that there is not.
        """
        if split == "val":
            return None
        if split == "train":
            return self._listed("Food-101N_release", "imagelist.tsv", header=True)
        return self._listed("food-101", "test.txt", ending=".jpg")

    def meta_listing(self) -> Listing | None:
        """The images that people found right."""
        if self.verified is None:
            return None
        return self._listed("Food-101N_release", f"verified_{self.verified}.tsv", header=True)

    def _listed(self, release: str, name: str, header: bool = False, ending: str = "") -> Listing:
        """The images of a list of ``class/key``, without those that a second column finds wrong (0)."""
        lines, path = self._lines(release, name, header)
        ids = {name: c for c, name in enumerate(self._dishes())}
        paths, labels = [], []
        for line in lines:
            key, *verdict = line.split()
            dish = key.partition("/")[0]
            if dish not in ids or verdict not in ([], ["0"], ["1"]):
                raise ValueError(
                    f"{path}: {line!r} is not '<class>/<image>' of a class in meta/classes.txt, with 0 or 1 behind it "
                    "where people have looked at it. Take the file of the archive."
                )
            if verdict != ["0"]:
                paths.append(str(Path(self.root) / release / "images" / f"{key}{ending}"))
                labels.append(ids[dish])
        return Listing(paths, np.asarray(labels, dtype=np.int64), str(path))

    def _dishes(self) -> list[str]:
        if self._names is None:
            lines, path = self._lines("Food-101N_release", "classes.txt", header=True)
            if len(set(lines)) != _CLASSES:
                raise ValueError(f"{path} names {len(set(lines))} classes, not {_CLASSES}. Take the archive's file.")
            self._names = sorted(set(lines))
        return self._names

    def _lines(self, release: str, name: str, header: bool) -> tuple[list[str], Path]:
        path = Path(self.root) / release / "meta" / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist. Unpack the archives of Food-101N and Food-101 into root={self.root!r}: "
                "Food-101N_release/ and food-101/ must stand there."
            )
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        # the first line of those of Food-101N names the columns
        skip = header and bool(lines) and lines[0].startswith("class_name")
        return lines[skip:], path
