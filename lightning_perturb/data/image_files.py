"""Image files that are decoded when they are served."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive

#: endings of the files that are images
IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def image_paths(folder: str) -> Iterator[str]:
    """The images in a folder and in those below it, in no order."""
    for base, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGES:
                yield os.path.join(base, name)


def decode_image(path: str, size: int, fit: str = "crop") -> npt.NDArray[np.uint8]:
    """One image ``[3, size, size]``; one that already is ``size`` x ``size`` is kept as it is.

    Args:
        path: The file.
        size: Height and width.
        fit: ``crop`` makes the shorter side ``size`` and crops in the centre; ``stretch`` makes both sides ``size``,
            so that nothing of the image is lost.

    Raises:
        ValueError: If the file is no image.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except Exception as error:  # decoders raise anything, and the file must be named
        raise ValueError(f"{path} cannot be read as an image ({error}). Replace or remove the file.") from error
    width, height = image.size
    short = min(width, height)
    if fit == "stretch":
        width = height = size
    elif short != size:
        width, height = size * width // short, size * height // short
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.uint8)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageFiles:
    """Image files in the place of the tensor of their pixels, ``[N, 3, size, size]`` in uint8.

    A file is decoded whenever its row is asked for; nothing is kept. What it gives depends on the file alone, so any
    worker gives the same.

    Args:
        paths: The files.
        size: Height and width after decoding.
        fit: As of :func:`decode_image`.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, paths: Sequence[str], size: int, fit: str = "crop") -> None:
        check_positive("size", size)
        check_choice("fit", fit, ("crop", "stretch"))
        # one block of bytes: a worker process that touches a list of strings copies it, counter by counter
        names = [os.fsencode(path) for path in paths]
        self._names = b"".join(names)
        self._ends = np.cumsum([0, *map(len, names)])
        self.size = size
        self.fit = fit

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def shape(self) -> torch.Size:
        """``[N, 3, size, size]``."""
        return torch.Size((len(self), 3, self.size, self.size))

    def __add__(self, other: ImageFiles) -> ImageFiles:
        """These files, and those of ``other`` behind them, decoded as these are."""
        both = ImageFiles([], self.size, self.fit)
        both._names = self._names + other._names
        both._ends = np.concatenate([self._ends, self._ends[-1] + other._ends[1:]])
        return both

    def path(self, position: int) -> str:
        """The file at a position."""
        return os.fsdecode(self._names[self._ends[position] : self._ends[position + 1]])

    def index_select(self, dim: int, positions: Tensor) -> Tensor:
        """Decodes the files at positions ``[n]`` to ``[n, 3, size, size]``; ``dim`` is 0."""
        out = torch.empty((len(positions), 3, self.size, self.size), dtype=torch.uint8)
        for row, position in zip(out, positions.tolist(), strict=True):
            row.copy_(torch.from_numpy(decode_image(self.path(position), self.size, self.fit)))
        return out

    def __getitem__(self, positions: Tensor) -> Tensor:
        """As :meth:`index_select`."""
        return self.index_select(0, positions)
