"""Folders of image files, one folder per class, decoded once into a memory-mapped array."""

import hashlib
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.data.augment import Augmentation, CropFlip
from lightning_perturb.data.base import Labels, PerturbationDataModule
from lightning_perturb.data.image_files import IMAGES, class_folders, decode_image, image_paths

# files decoded between two writes: enough to keep every core busy, little enough to need no memory
_BLOCK = 256


class ImageFolder(PerturbationDataModule):
    """Image files in ``train/``, ``test/`` and, where you have it, ``val/``, each with one folder per class.

    Every file is decoded once, resized so that its shorter side is ``size``, cropped in the centre, and kept in one
    array on disk, which is mapped into memory: large sets need no RAM (but workers that are spawned instead of forked,
    as on macOS and Windows, are handed a copy). The array is made anew when a file is added, removed or changed. An
    image that already is ``size`` x ``size`` is kept as it is.

    Args:
        root: Folder that holds ``train/<class>/*.png`` and ``test/<class>/*.png`` (also jpg, webp, bmp, tif, ppm), and
            ``val/<class>/`` if you have a clean validation set of your own. Subfolders of a class belong to the class.
        size: Height and width of the images after decoding.
        cache: Folder for the decoded arrays; null takes ``<root>/.cache``, or a temporary folder where that cannot be
            written.
        mean: Mean of red, green and blue in [0, 1]; by default ImageNet's.
        std: Standard deviation, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    def __init__(
        self,
        root: str,
        size: int = 32,
        cache: str | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        check_positive("size", size)
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean={mean!r} and std={std!r} must be three numbers each, those of std above 0.")
        self.size = size
        super().__init__(**kwargs)
        self.root = root
        self.cache = cache
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._names: list[str] | None = None

    @property
    def num_classes(self) -> int:
        """Number of folders in ``train/``; no image is read for it."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """Names of the folders in ``train/``, sorted: class c is the c-th.

        Raises:
            FileNotFoundError: If there is no such folder.
        """
        if self._names is None:
            train = Path(self.root) / "train"
            self._names = class_folders(train) if train.is_dir() else []
        if not self._names:
            raise FileNotFoundError(
                f"root={self.root!r} has no class folders in train/. Put the images into {self.root}/train/<class>/ "
                f"and {self.root}/test/<class>/, one folder per class, and optionally {self.root}/val/<class>/."
            )
        return self._names

    def usual_augmentation(self) -> Augmentation | None:
        """Crop and flip with a padding of an eighth of the size (4 pixels at 32, as in the papers)."""
        return CropFlip(padding=self.size // 8)

    def prepare_data(self) -> None:
        """Decodes what was not decoded yet; Lightning calls it in one process."""
        for split in ("train", "val", "test"):
            if self._has(split):
                self._decoded(split, self._listing(split))

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """uint8 images ``[N, 3, size, size]``, mapped from disk and not to be written to, and labels.

        Returns None for ``val`` and ``test`` where there is no such folder.

        Raises:
            FileNotFoundError: If there is no ``train/`` with class folders.
            ValueError: If the splits have other classes, a training class is empty, or a file is no image.
        """
        if not self._has(split):
            return None
        listing = self._listing(split)
        return _mapped(self._decoded(split, listing), (len(listing.files), 3, self.size, self.size)), listing.labels

    def _has(self, split: str) -> bool:
        return split == "train" or (Path(self.root) / split).is_dir()

    def _listing(self, split: str) -> "FolderListing":
        names, folder = self.class_names, Path(self.root) / split
        present = class_folders(folder)
        for fault, classes in (("lacks", set(names) - set(present)), ("has", set(present) - set(names))):
            if classes:
                raise ValueError(
                    f"{folder} {fault} the class folder {sorted(classes)[0]!r}, unlike {self.root}/train "
                    f"({len(classes)} such folders). Every split needs the same class folders; in val and test they "
                    "may be empty."
                )
        listing = _list(folder, names)
        empty = np.flatnonzero(np.bincount(listing.labels, minlength=len(names)) == 0)
        if split == "train" and empty.size:
            raise ValueError(
                f"{folder / names[empty[0]]} holds no image ({empty.size} such classes). Put images there "
                f"({', '.join(sorted(IMAGES))}), or remove the folder from every split."
            )
        return listing

    def _decoded(self, split: str, listing: "FolderListing") -> Path:
        """The file with the decoded images; written if it is not there."""
        name = f"{split}-{self.size}-{listing.checksum}.npy"
        folders = self._cache_folders()
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        path = _first_writable(folders) / name
        _decode(listing.files, self.size, path, f"Decoding {len(listing.files)} {split} images")
        return path

    def _cache_folders(self) -> list[Path]:
        if self.cache is not None:
            return [Path(self.cache)]
        # another root must not meet this one's arrays in the temporary folder
        own = hashlib.sha256(str(Path(self.root).resolve()).encode()).hexdigest()[:16]
        return [Path(self.root) / ".cache", Path(tempfile.gettempdir()) / f"lightning_perturb_{own}"]


@dataclass(frozen=True)
class FolderListing:
    """Image files of a split, their labels, and a name for this state of the folder."""

    files: list[str]
    labels: Labels
    checksum: str

    @classmethod
    def of(cls, files: list[str], labels: list[int], folder: Path) -> "FolderListing":
        """Files in a folder with their labels.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        digest = hashlib.sha256()
        start = len(str(folder)) + 1
        for path in files:
            state = os.stat(path)
            place = path[start:].replace(os.sep, "/")
            digest.update(f"{place}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
        return cls(files, np.asarray(labels, dtype=np.int64), digest.hexdigest()[:16])


def _list(folder: Path, names: list[str]) -> FolderListing:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(image_paths(os.path.join(folder, name)))
        files += found
        labels += [label] * len(found)
    return FolderListing.of(files, labels, folder)


def _first_writable(folders: list[Path]) -> Path:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise PermissionError(
        f"None of {', '.join(map(str, folders))} can be written. Set cache to a folder for the decoded images."
    )


def _decode(files: list[str], size: int, path: Path, title: str) -> None:
    """Decodes files into one .npy file that appears only when it is complete."""
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), 3, size, size)}
    try:
        # written in order and not through a map, which would end the process where the disk is full
        with open(unfinished, "xb") as out:
            np.lib.format.write_array_header_2_0(out, header)
            images = _images(files, size)
            for image in track(images, title, total=len(files), console=Console(stderr=True)):
                out.write(image.tobytes())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _images(files: list[str], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Images in the order of the files; PIL leaves the interpreter lock while it decodes, so threads help."""
    remaining = iter(files)
    with ThreadPoolExecutor() as pool:
        while block := list(islice(remaining, _BLOCK)):
            yield from pool.map(decode_image, block, [size] * len(block))


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The array of a file, read page by page when it is used."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(f"it holds {array.dtype} of shape {array.shape}")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it, and the images are decoded anew.") from error
    with warnings.catch_warnings():
        # nothing writes to it: loaders copy the samples that they take
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
