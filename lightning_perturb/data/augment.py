"""The papers' augmentation, on whole batches of uint8 images."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from torch import Tensor

from lightning_perturb.checks import check_positive


class Augmentation:
    """Changes a batch of images by given random numbers.

    Attributes:
        draws: How many uniform numbers one image needs.
    """

    draws: int = 0

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Augments a batch.

        Args:
            x: uint8 ``[B, C, H, W]``.
            uniform: Numbers in [0, 1) ``[B, draws]``.

        Returns:
            uint8 ``[B, C, H, W]``; the input is left as it is.
        """
        raise NotImplementedError  # pragma: no cover - the base is never used itself


class CropFlip(Augmentation):
    """Random crop from the padded image and random horizontal flip, as in all five papers.

    Args:
        padding: Pixels added on each side.
        mode: ``zeros`` (black) or ``reflect`` (mirrored; LPL and NARL).
        flip: Mirror half of the images; switch off for digits and text in images.
    """

    draws = 3

    def __init__(self, padding: int = 4, mode: Literal["zeros", "reflect"] = "zeros", flip: bool = True) -> None:
        if padding < 0:
            raise ValueError(f"padding={padding} is negative. Give 0 (no crop) or more pixels.")
        if mode not in ("zeros", "reflect"):
            raise ValueError(f"mode={mode!r} is unknown. Choose zeros or reflect.")
        self.padding = padding
        self.mode = mode
        self.flip = flip

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Crops and flips, see :class:`Augmentation`."""
        pad = self.padding
        height, width = x.shape[-2:]
        if self.mode == "reflect" and pad >= min(height, width):
            raise ValueError(f"padding={pad} cannot mirror images of {height} x {width}. Choose a smaller padding.")
        images = x.numpy()
        shift = (uniform[:, :2] * (2 * pad + 1)).long().numpy()
        # one gather from a view that holds every crop: faster than a copy per image
        crops = sliding_window_view(self._padded(images), (height, width), axis=(2, 3))
        out = crops[np.arange(len(images)), :, shift[:, 0], shift[:, 1]]
        if self.flip:
            mirrored = (uniform[:, 2] < 0.5).numpy()
            out[mirrored] = out[mirrored][..., ::-1]
        return torch.from_numpy(out)

    def _padded(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        # np.pad takes three times as long
        pad = self.padding
        batch, channels, height, width = images.shape
        padded = np.zeros((batch, channels, height + 2 * pad, width + 2 * pad), dtype=images.dtype)
        rows = padded[:, :, pad : pad + height]
        rows[..., pad : pad + width] = images
        if self.mode == "reflect":
            rows[..., :pad] = images[..., pad:0:-1]
            rows[..., pad + width :] = images[..., -2 : -2 - pad : -1]
            padded[:, :, :pad] = padded[:, :, 2 * pad : pad : -1]
            padded[:, :, pad + height :] = padded[:, :, pad + height - 2 : height - 2 : -1]
        return padded


class RandomResizedCrop(Augmentation):
    """A random part of the image, of random area and shape, resized to a square, and a random horizontal flip.

    One draw of area and shape; a part that would stick out of the image is cut to its side (torchvision draws anew).

    Args:
        size: Height and width of the result.
        area: Smallest and largest share of the image's area; ImageNet's training takes 0.08 to 1.
        ratio: Smallest and largest width over height of the part.
        flip: Mirror half of the images.
    """

    draws = 5

    def __init__(
        self,
        size: int,
        area: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
    ) -> None:
        check_positive("size", size)
        for name, (low, high), most in (("area", area, 1.0), ("ratio", ratio, np.inf)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{name}={(low, high)} is no interval above 0{' up to 1' if most == 1 else ''}.")
        self.size = size
        self.area = area
        self.ratio = ratio
        self.flip = flip

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Crops, resizes and flips, see :class:`Augmentation`."""
        height, width = x.shape[-2:]
        draws = uniform.double().numpy()
        area = (self.area[0] + (self.area[1] - self.area[0]) * draws[:, 0]) * height * width
        narrow, wide = np.log(self.ratio)
        ratio = np.exp(narrow + (wide - narrow) * draws[:, 1])
        # of at least one pixel, and not beyond the image
        widths = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
        heights = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
        left = np.floor(draws[:, 2] * (width - widths + 1))
        top = np.floor(draws[:, 3] * (height - heights + 1))
        boxes = np.stack([top, top + heights, left, left + widths], axis=1).astype(np.int64)
        out = torch.empty((*x.shape[:2], self.size, self.size), dtype=torch.uint8)
        for image, row, (top_row, end_row, first, last) in zip(x, out, boxes.tolist(), strict=True):
            row.copy_(_resized(image[:, top_row:end_row, first:last], self.size))
        if self.flip:
            mirrored = uniform[:, 4] < 0.5
            out[mirrored] = out[mirrored].flip(-1)
        return out


def _resized(image: Tensor, size: int) -> Tensor:
    """uint8 ``[C, H, W]`` as ``[C, size, size]``."""
    # PIL averages over what it shrinks, in whole numbers and several times faster than an interpolation of floats
    planes = image if len(image) == 1 else image.permute(1, 2, 0)[None]
    (pixels,) = planes.contiguous().numpy()
    resized = torch.from_numpy(np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)))
    return resized[None] if len(image) == 1 else resized.permute(2, 0, 1)


class RandomCrop(Augmentation):
    """A random square of the image, as it is, and a random horizontal flip.

    Args:
        size: Height and width of the result; at most those of the image.
        flip: Mirror half of the images.
    """

    draws = 3

    def __init__(self, size: int, flip: bool = True) -> None:
        check_positive("size", size)
        self.size = size
        self.flip = flip

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Crops and flips, see :class:`Augmentation`."""
        room = _room(x, self.size)
        # a product may be rounded up to the next whole number
        corners = torch.minimum((uniform[:, :2] * (room + 1)).long(), room).tolist()
        out = torch.empty((*x.shape[:2], self.size, self.size), dtype=torch.uint8)
        for image, row, (top, left) in zip(x, out, corners, strict=True):
            row.copy_(image[:, top : top + self.size, left : left + self.size])
        if self.flip:
            mirrored = uniform[:, 2] < 0.5
            out[mirrored] = out[mirrored].flip(-1)
        return out


def _room(x: Tensor, size: int) -> Tensor:
    """How far a square can be moved down and to the right in images ``[2]``."""
    height, width = x.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"size={size} does not fit in images of {height} x {width}. Choose a smaller size.")
    return torch.tensor([height - size, width - size])


class CenterCrop(Augmentation):
    """The middle of the image, with nothing random about it: what evaluation sees beside a random crop.

    Args:
        size: Height and width of the result; at most those of the image.
    """

    def __init__(self, size: int) -> None:
        check_positive("size", size)
        self.size = size

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Crops, see :class:`Augmentation`."""
        top, left = (_room(x, self.size) // 2).tolist()
        return x[..., top : top + self.size, left : left + self.size].contiguous()


class AugmentChain(Augmentation):
    """Several augmentations one after another, each of what the one before gave.

    Args:
        steps: The augmentations in order, at least one.
    """

    def __init__(self, steps: list[Augmentation]) -> None:
        if not steps:
            raise ValueError("steps=[] is empty. Give at least one augmentation, or augment: false for none.")
        self.steps = steps
        self.draws = sum(step.draws for step in steps)

    def __call__(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Augments, see :class:`Augmentation`."""
        parts = torch.split(uniform, [step.draws for step in self.steps], dim=1)
        for step, own in zip(self.steps, parts, strict=True):
            x = step(x, own)
        return x
