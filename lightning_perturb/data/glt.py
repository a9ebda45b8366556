"""The generalised long tail: ImageNet-GLT and MSCOCO-GLT, whose classes and attributes within them are long-tailed."""

import json
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.data.augment import Augmentation, RandomResizedCrop
from lightning_perturb.data.domains import group_ids
from lightning_perturb.data.labels import Labels, check_labels, choose_per_class, count_classes
from lightning_perturb.data.lazy_images import LazyImages, Listing, warn_of_other_numbers

_PROTOCOLS = ("CLT", "GLT", "ALT")
# the published generator numbers them from the most frequent on
_ATTRIBUTES = ("frequent", "medium", "rare")
# of the draw of clean samples, which is the same for every seed of the data
_SEED = 25


class GeneralizedLongTail(LazyImages):
    """A benchmark of the generalised long tail, from the annotation files that its published generator writes.

    The protocols are pairs of a training and a test set. ``CLT``: classes and attributes are long-tailed, the test is
    balanced in classes alone. ``GLT``: the same training set, the test is balanced in both. ``ALT``: training is
    balanced in classes alone, the test in both. Accuracy and ``macro_precision`` are what is compared.

    Attributes, three within each class, are the domains of samples. They are there for evaluation and for methods that
    ask for domains; the benchmark wants the others to do without.

    Args:
        root: Folder of the images.
        protocol: ``CLT``, ``GLT`` or ``ALT``.
        meta_per_group: Clean samples for meta-learning from each attribute of each class, which leave the validation
            set; fewer where it has fewer, and one training image of each class that it lacks. 0 takes none from there.
            The same for every ``seed``.
        size: Height and width of what the network gets.
        load_size: Height and width after decoding, at least ``size``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    classes: ClassVar[int] = 0
    #: annotation file, relative to ``annotations``, and known numbers of images, by training set
    files: ClassVar[dict[str, tuple[str, dict[str, int]]]] = {}

    def __init__(
        self,
        root: str,
        protocol: Literal["CLT", "GLT", "ALT"] = "GLT",
        meta_per_group: int = 0,
        size: int = 112,
        load_size: int = 128,
        **kwargs: Any,
    ) -> None:
        check_choice("protocol", protocol, _PROTOCOLS)
        check_positive("meta_per_group", meta_per_group, zero=True)
        self.brings_meta = meta_per_group > 0
        super().__init__(root, size, load_size, **kwargs)
        self.protocol = protocol
        self.meta_per_group = meta_per_group
        self._parts: dict[str, Listing] | None = None
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """As published."""
        return self.classes

    @property
    def class_names(self) -> list[str]:
        """The categories, from the most frequent on, once a split was read."""
        return self._names or super().class_names

    @property
    def domain_names(self) -> list[str]:
        """How frequent an attribute is within its class."""
        return list(_ATTRIBUTES)

    @property
    @abstractmethod
    def annotations(self) -> Path:
        """Folder of the annotation files."""

    @abstractmethod
    def image_path(self, written: PurePosixPath) -> Path:
        """The file of an image, of which the annotations hold the path on the machine that wrote them."""

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files, classes and attributes of a split; None for validation where clean samples are all of it.

        Raises:
            FileNotFoundError: If the annotation file does not exist.
            ValueError: If it is of another layout.
        """
        part = self._part(split)
        return part if part.paths or split != "val" else None

    def meta_listing(self) -> Listing | None:
        """Those of the clean samples."""
        return self._part("meta") if self.brings_meta else None

    def _part(self, name: str) -> Listing:
        if self._parts is None:
            file, numbers = self.files["bl" if self.protocol == "ALT" else "lt"]
            path = self.annotations / file
            tree = self._tree(path)
            keys = {"train": "train", "val": "val", "test": "test_bl" if self.protocol == "CLT" else "test_bbl"}
            parts = {}
            for part, key in keys.items():
                parts[part] = self._read_part(tree, key, path)
                warn_of_other_numbers(type(self), part, len(parts[part].paths), numbers.get(key), str(path))
            self._parts = self._with_meta_part(parts) if self.brings_meta else parts
        return self._parts[name]

    def _with_meta_part(self, parts: dict[str, Listing]) -> dict[str, Listing]:
        """Takes clean samples out of the validation images, and out of training those of classes that it lacks."""
        generator = np.random.default_rng(_SEED)
        train, val = parts["train"], parts["val"]
        groups = group_ids(val.labels, _attributes(val), len(_ATTRIBUTES))
        each = np.full(self.classes * len(_ATTRIBUTES), self.meta_per_group)
        of_val = choose_per_class(groups, each, generator)
        # a class with one training image keeps it
        spare = count_classes(train.labels, self.classes) > 1
        lacking = (count_classes(val.labels, self.classes) == 0) & spare
        of_train = choose_per_class(train.labels, lacking.astype(np.int64), generator)
        meta = _joined(_where(val, of_val), _where(train, of_train))
        return {**parts, "train": _where(train, ~of_train), "val": _where(val, ~of_val), "meta": meta}

    def _tree(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist. {self._remedy()}")
        try:
            with path.open(encoding="utf-8") as file:
                tree = json.load(file)
            names = {int(c): str(name) for c, name in tree["id2cat"].items()}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is no annotation file with id2cat, cat2id and splits ({type(error).__name__}: {error}). "
                f"{self._remedy()}"
            ) from error
        if sorted(names) != list(range(self.classes)):
            raise ValueError(f"{path} has {len(names)} classes where {self.classes} were published. {self._remedy()}")
        self._names = [names[c] for c in range(self.classes)]
        return tree  # type: ignore[no-any-return]

    def _read_part(self, tree: dict[str, Any], key: str, path: Path) -> Listing:
        try:
            split = tree[key]
            labels = {name: int(label) for name, label in split["label"].items()}
            attributes = [int(split["attribute"][name]) for name in labels]
            # MSCOCO-GLT names its images by key, ImageNet-GLT by path
            written = split.get("path", {name: name for name in labels})
            paths = [str(self.image_path(PurePosixPath(str(written[name]).replace("\\", "/")))) for name in labels]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: the split {key!r} does not give each image a label and an attribute "
                f"({type(error).__name__}: {error}). {self._remedy()}"
            ) from error
        ids = check_labels(np.fromiter(labels.values(), np.int64, len(labels)), self.classes, f"{path}: {key}: label")
        kinds = check_labels(np.asarray(attributes, np.int64), len(_ATTRIBUTES), f"{path}: {key}: attribute")
        return Listing(paths, ids, f"{path} ({key})", kinds)

    @abstractmethod
    def _remedy(self) -> str:
        """What to do where the annotation file is missing or another."""


def _attributes(part: Listing) -> Labels:
    assert part.domains is not None
    return part.domains


def _where(part: Listing, mask: npt.NDArray[np.bool_]) -> Listing:
    paths = [part.paths[place] for place in np.flatnonzero(mask).tolist()]
    return Listing(paths, part.labels[mask], part.source, _attributes(part)[mask])


def _joined(first: Listing, second: Listing) -> Listing:
    return Listing(
        first.paths + second.paths,
        np.concatenate([first.labels, second.labels]),
        first.source,
        np.concatenate([_attributes(first), _attributes(second)]),
    )


class ImageNetGLT(GeneralizedLongTail):
    """ImageNet-GLT: 1000 long-tailed classes of ImageNet; attributes are clusters of the images of a class.

    All its images, also those of validation and test, are training images of ImageNet. Only the last two parts of their
    paths in the annotation files count, so that these may come from another machine. The clustering draws without a
    seed: every generated file is another.

    Args:
        root: Folder of ILSVRC2012 with ``train/<wnid>/*.JPEG``.
        annotations: Folder of ``imagenet_sup_intra_lt_inter_lt.json`` (CLT and GLT) and
            ``imagenet_sup_intra_lt_inter_bl.json`` (ALT); None takes ``root``.
        **kwargs: Arguments of :class:`~lightning_perturb.data.glt.GeneralizedLongTail`.
    """

    classes = 1000
    files = {
        "lt": ("imagenet_sup_intra_lt_inter_lt.json", {"val": 30_000, "test_bl": 60_000}),
        "bl": ("imagenet_sup_intra_lt_inter_bl.json", {"val": 30_000}),
    }

    def __init__(self, root: str, annotations: str | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self._annotations = annotations

    @property
    def annotations(self) -> Path:
        """As given."""
        return Path(self._annotations or self.root)

    def image_path(self, written: PurePosixPath) -> Path:
        """``train/<wnid>/<name>`` in ``root``."""
        return Path(self.root, "train", *written.parts[-2:])

    def _remedy(self) -> str:
        return (
            "Let the generator of the generalised long-tailed benchmarks (imagenet_glt_generation.py) write it, and "
            "give its folder as annotations."
        )


class MSCOCOGLT(GeneralizedLongTail):
    """MSCOCO-GLT: objects cut out of MS-COCO, 29 long-tailed classes; attributes are thirds of the images.

    The first third are the objects of a split whose attributes are the most frequent in training.

    Args:
        root: Folder that the published generator wrote: ``coco_glt/`` (CLT and GLT) and ``coco_cbl/`` (ALT), each with
            ``annotation.json`` and ``images/*.jpg``.
        mean: Mean of red, green and blue in [0, 1].
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.glt.GeneralizedLongTail`.
    """

    classes = 29
    files = {
        "lt": ("coco_glt/annotation.json", {"val": 2_900, "test_bl": 5_800, "test_bbl": 5_800}),
        "bl": ("coco_cbl/annotation.json", {"val": 1_450, "test_bl": 2_900, "test_bbl": 2_900}),
    }

    def __init__(
        self,
        root: str,
        mean: tuple[float, float, float] = (0.473, 0.429, 0.370),
        std: tuple[float, float, float] = (0.277, 0.268, 0.274),
        **kwargs: Any,
    ) -> None:
        super().__init__(root, mean=mean, std=std, **kwargs)

    @property
    def annotations(self) -> Path:
        """``root``."""
        return Path(self.root)

    def usual_augmentation(self) -> Augmentation | None:
        """A random part of at least half of the image."""
        return RandomResizedCrop(self.size, area=(0.5, 1.0))

    def image_path(self, written: PurePosixPath) -> Path:
        """``images/<name>`` beside the annotation file."""
        return Path(self.root, "coco_cbl" if self.protocol == "ALT" else "coco_glt", "images", written.name)

    def _remedy(self) -> str:
        return (
            "Let the generator of the generalised long-tailed benchmarks (mscoco_glt_generation.py, then "
            f"mscoco_glt_crop.py) write it into root={self.root!r}."
        )
