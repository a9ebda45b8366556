"""Images of suspected labels on one page [tax Fig. 6]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lightning_perturb.figures.style import COLORS, blank


def contact_sheet(
    images: npt.NDArray[np.uint8],
    given: Sequence[str],
    suggested: Sequence[str],
    index: npt.NDArray[np.integer[Any]] | None = None,
    columns: int = 8,
) -> Figure:
    """Images with their given and suggested labels, in reading order [tax Fig. 6].

    Args:
        images: uint8 images ``[n, C, H, W]`` with one or three channels, at least one image.
        given: Name of each given label, n of them.
        suggested: Name of each suggested label, n of them.
        index: Position of each sample in the full training set ``[n]``, written below its image; or None.
        columns: Images in a row.

    Raises:
        ValueError: If there are no images, they have another form, or the names are not as many.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"images have the shape {images.shape}. Give at least one image, [n, 1 or 3, H, W].")
    if not len(images) == len(given) == len(suggested):
        raise ValueError(
            f"{len(images)} images, {len(given)} given and {len(suggested)} suggested names. Give one of each an image."
        )
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    names = [_label(g, s) for g, s in zip(given, suggested, strict=True)]
    # inches above and below an image: one or two lines of names, and its position
    text = (0.34 if any("\n" in name for name in names) else 0.2) + (0.0 if index is None else 0.16)
    figure = blank(max(1.15 * columns, 4.0), (1.1 + text) * rows + 0.35)
    figure.suptitle("given label → suggested label, the most suspect first", fontsize=9)
    for place, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, place + 1)
        if len(image) == 1:
            axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
        else:
            axes.imshow(image.transpose(1, 2, 0))
        axes.set_xticks([])
        axes.set_yticks([])
        same = given[place] == suggested[place]
        color = "#555555" if same else COLORS[1]
        axes.set_title(names[place], fontsize=8, color=color, pad=3)
        if index is not None:
            axes.set_xlabel(f"# {index[place]}", fontsize=6.5, color="#555555", labelpad=2)
    return figure


def _label(given: str, suggested: str, longest: int = 17) -> str:
    # the width of an image holds about this many letters
    if len(given) + len(suggested) + 3 <= longest:
        return f"{given} → {suggested}"
    first, second = (name if len(name) <= longest - 2 else name[: longest - 3] + "…" for name in (given, suggested))
    return f"{first}\n→ {second}"
