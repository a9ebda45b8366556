"""Clothing1M: images from shops, labelled by the text around them, and some that were labelled by hand."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_perturb.data.augment import Augmentation, RandomCrop
from lightning_perturb.data.labels import check_labels
from lightning_perturb.data.lazy_images import LazyImages, Listing

_NAMES = (
    "T-shirt", "shirt", "knitwear", "chiffon", "sweater", "hoodie", "windbreaker", "jacket", "down coat", "suit",
    "shawl", "dress", "vest", "underwear",
)  # fmt: skip
# which list of keys, and the labels of which file, make a split
_FILES = {
    "train": ("noisy_train_key_list.txt", "noisy_label_kv.txt"),
    "val": ("clean_val_key_list.txt", "clean_label_kv.txt"),
    "test": ("clean_test_key_list.txt", "clean_label_kv.txt"),
    "meta": ("clean_train_key_list.txt", "clean_label_kv.txt"),
}


class Clothing1M(LazyImages):
    """Clothing1M: a million training images of 14 classes, about 38 % of whose labels are wrong, nobody knows which.

    Its 14 313 validation and 10 526 test images are labelled by hand. So are 47 570 more, which are the clean samples
    of meta-learned methods (``meta_size`` takes some, ``meta_labels`` says what other methods get of them).

    Papers train on a part: ``train_size`` keeps the proportions of the classes, ``imbalance`` with ``Balanced`` as many
    of each, and ``balanced_from: 0`` with ``limit_train_batches`` of the trainer draws a balanced part anew in each
    epoch.

    Args:
        root: Folder with ``noisy_label_kv.txt``, ``clean_label_kv.txt``, ``noisy_train_key_list.txt``,
            ``clean_train_key_list.txt``, ``clean_val_key_list.txt``, ``clean_test_key_list.txt``, and the images: in
            ``images/0`` to ``images/9``, as the lists name them, or in ``0`` to ``9``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    brings_meta = True
    published = {"train": 1_000_000, "val": 14_313, "test": 10_526}

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(root, labels_known=False, **kwargs)
        self._labels_of: dict[str, dict[str, int]] = {}

    @property
    def num_classes(self) -> int:
        """Fourteen."""
        return len(_NAMES)

    @property
    def class_names(self) -> list[str]:
        """Kinds of clothing."""
        return list(_NAMES)

    def usual_augmentation(self) -> Augmentation | None:
        """A random square and a flip."""
        return RandomCrop(self.size)

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and labels of a split: noisy ones for training, those made by hand for the others.

        Raises:
            FileNotFoundError: If a file does not exist.
            ValueError: If a line does not fit, or a listed image has no label.
        """
        return self._read(split)

    def meta_listing(self) -> Listing | None:
        """The training images that were labelled by hand."""
        return self._read("meta")

    def setup(self, stage: str | None = None) -> None:
        """As in the base; a million labels by name are not kept."""
        super().setup(stage)
        self._labels_of = {}

    def _read(self, split: str) -> Listing:
        name, labels_name = _FILES[split]
        path = self._existing(name)
        labels_of = self._labels_in(labels_name)
        keys = path.read_text(encoding="utf-8").split()
        unknown = next((key for key in keys if key not in labels_of), None)
        if unknown is not None:
            raise ValueError(
                f"{path} lists {unknown}, which has no label in {labels_name}. Take both from the release."
            )
        labels = np.fromiter((labels_of[key] for key in keys), dtype=np.int64, count=len(keys))
        check_labels(labels, self.num_classes, f"{labels_name}: label")
        root = Path(self.root)
        start = 0 if (root / "images").is_dir() else len("images/")
        return Listing([str(root / key[start:]) for key in keys], labels, str(path))

    def _labels_in(self, name: str) -> dict[str, int]:
        if name not in self._labels_of:
            path = self._existing(name)
            found = {}
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    parts = line.split()
                    if len(parts) != 2 or not parts[1].isdecimal() or not parts[0].startswith("images/"):
                        raise ValueError(
                            f"{path}, line {number}: {line.strip()!r} is not 'images/<folder>/<name>.jpg class_id'. "
                            "Take the file of the release."
                        )
                    found[parts[0]] = int(parts[1])
            self._labels_of[name] = found
        return self._labels_of[name]

    def _existing(self, name: str) -> Path:
        path = Path(self.root) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist. Put the annotation files of Clothing1M "
                f"({', '.join(sorted({part for pair in _FILES.values() for part in pair}))}) into {self.root}."
            )
        return path
