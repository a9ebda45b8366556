"""Samples between images that stand for their augmentations [iada Fig. 5]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lightning_perturb.figures.style import COLORS, blank

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Augmented:
    """A sample and its augmentations.

    Attributes:
        name: Name of its class.
        image: The sample, uint8 ``[1 or 3, H, W]``.
        loss: Its loss.
        easier: Images of its anti-adversarial augmentations ``[n, 1 or 3, H, W]``.
        easier_loss: Their losses ``[n]``.
        harder: Images of its adversarial augmentations ``[n, 1 or 3, H, W]``.
        harder_loss: Their losses ``[n]``.
    """

    name: str
    image: Images
    loss: float
    easier: Images
    easier_loss: npt.NDArray[np.floating]
    harder: Images
    harder_loss: npt.NDArray[np.floating]


def augmented_samples(samples: Sequence[Augmented]) -> Figure:
    """A row for each sample: anti-adversarial augmentations, the sample, adversarial ones, each with its loss.

    Args:
        samples: At least one; all with equally many augmentations.

    Raises:
        ValueError: If there are none, or their augmentations differ in number.
    """
    if not samples:
        raise ValueError("samples=[] is empty. Give at least one sample with its augmentations.")
    draws = len(samples[0].easier)
    if any(not len(one.easier) == len(one.harder) == draws for one in samples):
        raise ValueError(f"samples have other numbers of augmentations than the first, {draws}. Give all equally many.")
    columns = 2 * draws + 1
    figure = blank(max(1.0 * columns, 4.0), 1.25 * len(samples) + 0.5)
    figure.suptitle("anti-adversarial  ←  sample  →  adversarial; the number is the loss", fontsize=9)
    for row, one in enumerate(samples):
        images = [*one.easier, one.image, *one.harder]
        losses = [*one.easier_loss, one.loss, *one.harder_loss]
        for column, (image, loss) in enumerate(zip(images, losses, strict=True)):
            axes = figure.add_subplot(len(samples), columns, row * columns + column + 1)
            if len(image) == 1:
                axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
            else:
                axes.imshow(image.transpose(1, 2, 0))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"{loss:.2f}", fontsize=7, color="#555555", labelpad=2)
            if column == draws:
                axes.set_title(one.name, fontsize=8, pad=3)
                for side in axes.spines.values():
                    side.set_color(COLORS[0])
                    side.set_linewidth(2)
    return figure
