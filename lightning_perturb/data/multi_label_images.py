"""Multi-label sets of photographs: MS-COCO, and the long-tailed COCO-MLT and VOC-MLT."""

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np

from lightning_perturb.data.augment import Augmentation, RandomResizedCrop
from lightning_perturb.data.coco_json import CocoFile, read_coco
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.lazy_images import LazyImages, Listing


class MultiLabelImages(LazyImages):
    """Photographs with several labels, stretched to a square so that no labelled object is cut off in evaluation.

    Training sees at least 0.64 of the area, close to what is published for VOC-MLT and COCO-MLT (sides of 0.8 to 1; the
    change of colours that goes with it there is left out).

    Args:
        root: Folder of the data set.
        size: Height and width of what the network gets.
        load_size: Height and width after decoding; None takes ``size``, so that evaluation sees the whole image.
        fit: How an image becomes a square: ``stretch``, or ``crop`` (shorter side to ``load_size``, then the middle).
        **kwargs: Arguments of :class:`~lightning_perturb.data.lazy_images.LazyImages`.
    """

    multi_label = True
    #: published positives of each class in training, where there are such numbers
    published_counts: ClassVar[tuple[int, ...] | None] = None

    def __init__(
        self,
        root: str,
        size: int = 224,
        load_size: int | None = None,
        fit: Literal["crop", "stretch"] = "stretch",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, size=size, load_size=load_size or size, fit=fit, **kwargs)
        self._listed: dict[str, Listing] = {}

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The published names."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def usual_augmentation(self) -> Augmentation | None:
        """A random part with sides of about 0.8 to 1 of the image's."""
        return RandomResizedCrop(self.size, area=(0.64, 1.0), ratio=(0.8, 1.25))

    def listing(self, split: Literal["train", "val", "test"]) -> Listing | None:
        """Files and multi-hot labels of a split; there is no validation split."""
        if split == "val":
            return None
        if split not in self._listed:
            self._listed[split] = self._read_list(split)
            counts = tuple(self._listed[split].labels.sum(0).tolist())
            if split == "train" and self.published_counts not in (None, counts):
                warnings.warn(
                    f"{type(self).__name__} has other numbers of positives ({counts}) than published "
                    f"({self.published_counts}): its images or annotations are not those.",
                    stacklevel=2,
                )
        return self._listed[split]

    @abstractmethod
    def _read_list(self, split: Literal["train", "test"]) -> Listing:
        """Reads a split from its files."""


class MSCOCO(MultiLabelImages):
    """MS-COCO 2014 with its 80 categories as labels: 82 081 training images, and 40 137 validation images as the test.

    Images without an object have no label and are left out, as published. Read without pycocotools.

    Args:
        root: Folder with ``annotations/instances_train2014.json``, ``annotations/instances_val2014.json``,
            ``train2014/`` and ``val2014/``.
        size: Height and width of what the network gets; [lpl Table X] takes 448.
        **kwargs: Arguments of :class:`~lightning_perturb.data.multi_label_images.MultiLabelImages`.
    """

    published = {"train": 82_081, "test": 40_137}
    _year: ClassVar[str] = "2014"
    _categories: ClassVar[int] = 80

    def __init__(self, root: str, size: int = 448, **kwargs: Any) -> None:
        super().__init__(root, size, **kwargs)
        self._names: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """The categories, once a split was read; numbers before."""
        return self._names or [str(c) for c in range(self._categories)]

    def _read_list(self, split: Literal["train", "test"]) -> Listing:
        file = self._annotations(split)
        labels = coco_labels(file)
        kept = np.flatnonzero(labels.sum(1))
        images = list(file.images)
        return self._listing_of(file, [images[row] for row in kept.tolist()], labels[kept], split)

    def _annotations(self, split: Literal["train", "test"]) -> CocoFile:
        name = self._folder(split)
        remedy = (
            f"Put annotations/instances_train{self._year}.json and instances_val{self._year}.json of MS-COCO, "
            f"train{self._year}/ and val{self._year}/ into {self.root}."
        )
        file = read_coco(Path(self.root) / "annotations" / f"instances_{name}.json", self._categories, remedy)
        self._names = file.names
        return file

    def _folder(self, split: Literal["train", "test"]) -> str:
        return f"{'train' if split == 'train' else 'val'}{self._year}"

    def _listing_of(
        self, file: CocoFile, chosen: list[int], labels: Labels, split: Literal["train", "test"]
    ) -> Listing:
        folder = Path(self.root) / self._folder(split)
        return Listing([str(folder / file.images[image]) for image in chosen], labels, str(file.path))


class COCOMLT(MSCOCO):
    """COCO-MLT: 1909 long-tailed images of MS-COCO 2017, 6 to 1128 in a class; its 5000 validation images are the test.

    Args:
        root: Folder with ``annotations/instances_train2017.json``, ``annotations/instances_val2017.json``,
            ``train2017/`` and ``val2017/``.
        image_list: The published list of training images, one image id on each line; None takes
            ``<root>/longtail2017/img_id.pkl``, which is a text file in spite of its name. No other of the published
            files is needed: class counts and the head, medium and tail classes follow from the annotations.
        size: Height and width of what the network gets.
        **kwargs: Arguments of :class:`~lightning_perturb.data.multi_label_images.MultiLabelImages`.
    """

    published = {"train": 1909, "test": 5000}
    _year = "2017"

    def __init__(self, root: str, image_list: str | None = None, size: int = 224, **kwargs: Any) -> None:
        super().__init__(root, size, **kwargs)
        self.image_list = image_list or str(Path(root) / "longtail2017" / "img_id.pkl")

    def _read_list(self, split: Literal["train", "test"]) -> Listing:
        file = self._annotations(split)
        labels = coco_labels(file, extended=True)
        if split == "test":
            return self._listing_of(file, list(file.images), labels, split)
        place = {image: row for row, image in enumerate(file.images)}
        chosen = []
        for number, word in enumerate(read_image_list(self.image_list, "image_list"), 1):
            if not word.isdecimal() or int(word) not in place:
                raise ValueError(
                    f"{self.image_list}, line {number}: {word!r} is no image id of {file.path}. Give the published "
                    "list of COCO-MLT."
                )
            chosen.append(int(word))
        listing = self._listing_of(file, chosen, labels[[place[image] for image in chosen]], split)
        return listing._replace(source=self.image_list)


class VOCMLT(MultiLabelImages):
    """VOC-MLT: 1142 long-tailed images of Pascal VOC 2012, 4 to 775 in a class; the 4952 test images of VOC 2007.

    A class is a label of an image if it has an object of it, also one that is marked as difficult, as published.

    Args:
        root: The folder ``VOCdevkit`` with ``VOC2012/`` and ``VOC2007/``, each with ``JPEGImages/`` and
            ``Annotations/``, and ``VOC2007/ImageSets/Main/test.txt``.
        image_list: The published list of training images, one image id on each line; None takes
            ``<root>/longtail2012/img_id.txt``. No other of the published files is needed: class counts and the head,
            medium and tail classes follow from the annotations.
        **kwargs: Arguments of :class:`~lightning_perturb.data.multi_label_images.MultiLabelImages`.
    """

    published = {"train": 1142, "test": 4952}
    published_counts = (6, 34, 8, 14, 154, 17, 249, 29, 479, 4, 240, 48, 11, 20, 775, 100, 5, 82, 7, 64)

    def __init__(self, root: str, image_list: str | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.image_list = image_list or str(Path(root) / "longtail2012" / "img_id.txt")

    @property
    def class_names(self) -> list[str]:
        """The twenty classes of Pascal VOC, in alphabetical order."""
        return list(_VOC)

    def _read_list(self, split: Literal["train", "test"]) -> Listing:
        folder = Path(self.root) / ("VOC2012" if split == "train" else "VOC2007")
        source = self.image_list if split == "train" else str(folder / "ImageSets" / "Main" / "test.txt")
        names = read_image_list(source, "image_list" if split == "train" else "root")
        labels = np.stack([voc_labels(folder / "Annotations" / f"{name}.xml") for name in names])
        return Listing([str(folder / "JPEGImages" / f"{name}.jpg") for name in names], labels, source)


_VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_image_list(path: str, argument: str) -> list[str]:
    """The image ids of a published list, one a line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text, has no lines, or several words on a line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{argument}: the list of images {path} does not exist. Fetch it from the authors of the data set, or give "
            "its place."
        )
    try:
        words = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        words = []
    if not words or any(len(line) != 1 for line in words):
        raise ValueError(
            f"{argument}: {path} is no text file with one image id on each line. A pickle is not opened, since it "
            "could execute code: write its ids into a text file, one a line."
        )
    return [line[0] for line in words]


def coco_labels(file: CocoFile, extended: bool = False) -> Labels:
    """Multi-hot labels ``[N, C]`` of the images of an annotation file, in its order.

    Args:
        file: The file.
        extended: Leave out annotations that are to be ignored or have no extent (area 0, or a box below one pixel), as
            published for COCO-MLT.
    """
    row = {image: place for place, image in enumerate(file.images)}
    labels = np.zeros((len(row), len(file.classes)), dtype=np.int64)
    for note in file.annotations:
        _, _, width, height = note.get("bbox", (0, 0, 1, 1))
        extent = not note.get("ignore") and note.get("area", 1) > 0 and width >= 1 and height >= 1
        if extent or not extended:
            labels[row[int(note["image_id"])], file.classes[note["category_id"]]] = 1
    return labels


def voc_labels(path: Path) -> Labels:
    """Multi-hot labels ``[20]`` of an annotation file of Pascal VOC.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read or names another class.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Unpack Pascal VOC 2007 (test) and 2012 (trainval) so that root holds VOC2007/ and "
            "VOC2012/ with Annotations/ and JPEGImages/."
        )
    try:
        names = [item.findtext("name", "").strip() for item in ElementTree.parse(path).getroot().findall("object")]
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML file ({error}). Unpack Pascal VOC anew.") from error
    strange = sorted(set(names) - set(_VOC))
    if strange:
        raise ValueError(f"{path} has an object of the class {strange[0]!r}, which is none of Pascal VOC's twenty.")
    return np.asarray([name in names for name in _VOC], dtype=np.int64)
