"""Figures into files and TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def save(
    figure: Figure,
    path: str | os.PathLike[str],
    loggers: Iterable[Logger] = (),
    tag: str | None = None,
    step: int = 0,
) -> Path:
    """Writes a figure as PNG, and into every TensorBoard logger.

    Args:
        figure: The figure.
        path: The file; its folder is made.
        loggers: A trainer's loggers; those that are not TensorBoard's are passed over.
        tag: Name in TensorBoard; None takes the file's name.
        step: Step in TensorBoard.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            # Any: not every release of matplotlib has types for it
            canvas: Any = FigureCanvasAgg(figure)
            canvas.draw()
            # not add_figure: that one imports pyplot
            pixels = np.asarray(canvas.buffer_rgba())[..., :3]
            logger.experiment.add_image(tag or path.stem, pixels, step, dataformats="HWC")
    return path
