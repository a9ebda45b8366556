"""Sets of image files that no memory holds: each image is decoded when it is served."""

import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.data.augment import Augmentation, CenterCrop, RandomResizedCrop
from lightning_perturb.data.base import Labels, PerturbationDataModule
from lightning_perturb.data.image_files import ImageFiles

# files of a listing that are looked for before training
_LOOKED_FOR = 64


class Listing(NamedTuple):
    """The files of a split and their labels.

    Attributes:
        paths: Image files ``[N]``.
        labels: Class ids ``[N]``, or multi-hot ``[N, C]``.
        source: The file that lists them.
        domains: Domain ids ``[N]``, or None where images have no domains.
    """

    paths: list[str]
    labels: Labels
    source: str
    domains: Labels | None = None

    def without(self, other: "Listing") -> "Listing":
        """What the other does not list."""
        known = set(other.paths)
        kept = [place for place, path in enumerate(self.paths) if path not in known]
        domains = None if self.domains is None else self.domains[kept]
        return Listing([self.paths[place] for place in kept], self.labels[kept], self.source, domains)


def warn_of_other_numbers(kind: type, split: str, found: int, published: int | None, source: str) -> None:
    """Warns where a split has not as many images as were published."""
    if published not in (None, found):
        warnings.warn(
            f"{source} gives {found} {split} images, {kind.__name__} was published with {published}. Copies with other "
            "numbers go round; results are then compared on other data.",
            stacklevel=3,
        )


class LazyImages(PerturbationDataModule):
    """Image files that a list gives labels to, decoded anew whenever they are served.

    An image becomes a square of ``load_size``, the same at any time and in any worker. Training sees a random part of
    it, resized to ``size`` and mirrored half of the time, evaluation its middle. Decoding is what costs time: set
    ``num_workers``. A subclass lists the files of a split (:meth:`listing`).

    Args:
        root: Folder of the data set.
        size: Height and width of what the network gets.
        load_size: Height and width after decoding, at least ``size``.
        fit: How an image becomes a square: ``crop`` (shorter side to ``load_size``, then the middle) or ``stretch``.
        mean: Mean of red, green and blue in [0, 1]; by default ImageNet's.
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    #: published numbers of images by split
    published: Mapping[str, int] = {}

    def __init__(
        self,
        root: str,
        size: int = 224,
        load_size: int = 256,
        fit: Literal["crop", "stretch"] = "crop",
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        check_positive("size", size)
        check_choice("fit", fit, ("crop", "stretch"))
        if load_size < size:
            raise ValueError(f"load_size={load_size} is less than size={size}. Images are cropped: raise it.")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean={mean!r} and std={std!r} must be three numbers each, those of std above 0.")
        self.size = size
        self.load_size = load_size
        self.fit = fit
        super().__init__(**kwargs)
        self.root = root
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._listed_domains: dict[str, Labels | None] = {}

    @abstractmethod
    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and labels of a split; None where there is none."""

    def usual_augmentation(self) -> Augmentation | None:
        """A random part of the image, as in training on ImageNet."""
        return RandomResizedCrop(self.size)

    def evaluation_view(self) -> Augmentation | None:
        """The middle of the image."""
        return CenterCrop(self.size) if self.load_size > self.size else None

    def meta_listing(self) -> Listing | None:
        """Files and labels of clean samples for meta-learning; None where the source brings none.

        Those that the training split lists too are taken out of it.
        """
        return None

    def read(self, split: Literal["train", "val", "test"]) -> tuple[ImageFiles, Labels] | None:
        """The files of a split, to be decoded to uint8 ``[N, 3, load_size, load_size]``, and their labels.

        Warns where there are not as many as were published.

        Raises:
            FileNotFoundError: If the list, or a file that it names, does not exist; some of the files are looked for.
            ValueError: If the list cannot be read or does not fit the classes.
        """
        listing = self.listing(split)
        if listing is None:
            return None
        if listing.paths:
            warn_of_other_numbers(type(self), split, len(listing.paths), self.published.get(split), listing.source)
        meta = self.meta_listing() if split == "train" and self.brings_meta else None
        if meta is not None:
            listing = listing.without(meta)
        self._listed_domains[split] = listing.domains
        return self._files(listing, f"the {split} split")

    def read_meta(self) -> tuple[ImageFiles, Labels] | None:
        """The files of clean samples, likewise."""
        listing = self.meta_listing()
        return None if listing is None else self._files(listing, "clean samples")

    def read_meta_domains(self) -> Labels | None:
        """Those of the listing of clean samples."""
        listing = self.meta_listing()
        return None if listing is None else listing.domains

    def _files(self, listing: Listing, use: str) -> tuple[ImageFiles, Labels]:
        if not listing.paths:
            raise ValueError(f"{listing.source} lists no image for {use}. Give a list with images.")
        self._check_files(listing)
        return ImageFiles(listing.paths, self.load_size, self.fit), listing.labels

    def read_domains(self, split: Literal["train", "val", "test"]) -> Labels | None:
        """Those of the listing that was read."""
        return self._listed_domains.get(split)

    def _check_files(self, listing: Listing) -> None:
        chosen = np.unique(np.linspace(0, len(listing.paths) - 1, _LOOKED_FOR).astype(np.int64))
        missing = [listing.paths[i] for i in chosen.tolist() if not os.path.isfile(listing.paths[i])]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]} does not exist, but {listing.source} lists it ({len(missing)} of {len(chosen)} files "
                f"looked for are missing). root={self.root!r} must be the folder that the images are in as published."
            )
