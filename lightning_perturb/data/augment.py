"""The papers' augmentation, on whole batches of uint8 images."""

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor


class Augmentation:
    """Changes a batch of images by given random numbers.

    Attributes:
        draws: How many uniform numbers one image needs.
    """

    draws: ClassVar[int] = 0

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

    draws: ClassVar[int] = 3

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
