"""iNaturalist 2017, whose lists are annotation files in the layout of MS-COCO."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_perturb.data.coco_json import CocoFile, read_coco
from lightning_perturb.data.image_lists import _INATURALIST_MEAN, _INATURALIST_STD
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.lazy_images import LazyImages, Listing

_SPECIES = 5089


class INaturalist2017(LazyImages):
    """iNaturalist 2017: 579 184 long-tailed training images of 5089 species; the 95 986 validation images are the test.

    Args:
        root: Folder with ``train_val_images/<super>/<species>/*.jpg``, and the annotation files.
        train_json: The annotation file of training images, in ``root``.
        val_json: That of validation images.
        mean: Mean of red, green and blue in [0, 1].
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    published = {"train": 579_184, "test": 95_986}

    def __init__(
        self,
        root: str,
        train_json: str = "train2017.json",
        val_json: str = "val2017.json",
        mean: tuple[float, float, float] = _INATURALIST_MEAN,
        std: tuple[float, float, float] = _INATURALIST_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, mean=mean, std=std, **kwargs)
        self.files = {"train": train_json, "test": val_json}
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """Number of species."""
        return _SPECIES

    @property
    def class_names(self) -> list[str]:
        """The species, once a split was read."""
        return self._names or super().class_names

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and species of an annotation file, one for each image.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is of another layout, or an image has not just one species.
        """
        if split not in self.files:
            return None
        path = Path(self.root) / self.files[split]
        remedy = f"Put train2017.json, val2017.json and train_val_images/ of iNaturalist 2017 into {self.root}."
        file = read_coco(path, _SPECIES, remedy)
        self._names = file.names
        return Listing(
            [str(Path(self.root) / name) for name in file.images.values()], _species(file, remedy), str(path)
        )


def _species(file: CocoFile, remedy: str) -> Labels:
    species = dict.fromkeys(file.images, -1)
    for note in file.annotations:
        image = int(note["image_id"])
        if species[image] >= 0:
            raise ValueError(f"{file.path} gives image {image} two species. {remedy}")
        species[image] = file.classes[note["category_id"]]
    labels = np.fromiter(species.values(), dtype=np.int64, count=len(species))
    if (labels < 0).any():
        image = list(species)[int((labels < 0).argmax())]
        raise ValueError(f"{file.path} gives image {image} no species. {remedy}")
    return labels
