"""What a callback asks about the run that it belongs to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_perturb.core.inputs import Normalised
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.tasks import Tasks


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run's logs, or the trainer's root folder; must be called on all ranks."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def _of_data(trainer: Trainer, name: str) -> Any:
    return getattr(getattr(trainer, "datamodule", None), name, None)


def normalisation(trainer: Trainer) -> Normalised | None:
    """What tells how pixels were normalised; None where the data are not of this package."""
    data: Any = getattr(trainer, "datamodule", None)
    # what others call mean and std may be anything
    return data if isinstance(data, (DrawnDataModule, Tasks)) else None


def true_labels(trainer: Trainer, size: int | None = None) -> npt.NDArray[np.int64] | None:
    """True labels of the first ``size`` samples of the full training set, or all, where the data module knows them."""
    labels = _of_data(trainer, "true_labels")
    return None if labels is None or len(labels) < (size or 0) else np.asarray(labels)[:size]


def class_names(trainer: Trainer, num_classes: int) -> list[str]:
    """The data module's class names, or the class ids."""
    names = _of_data(trainer, "class_names")
    return list(names) if names is not None and len(names) >= num_classes else [str(c) for c in range(num_classes)]


def raw_images(trainer: Trainer, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
    """Images at positions of the full training set, to look at.

    Args:
        trainer: The trainer, whose data module may have ``raw_inputs``.
        positions: Positions ``[n]``.

    Returns:
        uint8 ``[n, 1 or 3, H, W]``; None where the data are no images, or images of unequal sizes. Inputs that are
        already floats are stretched from their darkest to their brightest value.
    """
    read = _of_data(trainer, "raw_inputs")
    if read is None or not len(positions):
        return None
    try:
        images = read(positions)
    except ValueError as error:
        # a picture is no reason to lose the end of a long run
        warnings.warn(f"No contact sheet is made: {error}", stacklevel=2)
        return None
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        return None
    pixels: npt.NDArray[np.uint8] = (images if images.dtype == torch.uint8 else _stretched(images)).cpu().numpy()
    return pixels


def raw_texts(trainer: Trainer, positions: npt.NDArray[np.int64]) -> list[str]:
    """Texts at positions of the full training set, to read; empty where the data are no texts."""
    read = _of_data(trainer, "raw_texts")
    return [] if read is None else [str(text) for text in read(positions)]


def _stretched(images: Tensor) -> Tensor:
    flat = images.flatten(1).float()
    low, high = (edge[:, None, None, None] for edge in (flat.amin(1), flat.amax(1)))
    return ((images.float() - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
