"""Several noises one after another."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.label_noise.base import LabelNoise
from lightning_perturb.data.labels import Labels


class Chain(LabelNoise):
    """Applies several noises, each to what the one before gave.

    The first draws the same labels as it does alone with the same seed. So a file of repaired labels can follow the
    synthetic noise that it repairs.

    Args:
        noises: the noises in order, at least one; all for class ids, or all for multi-hot labels.

    Raises:
        ValueError: if there is none, or both kinds are.
    """

    def __init__(self, noises: list[LabelNoise]) -> None:
        if not noises:
            raise ValueError("noises=[] is empty. Give at least one noise, or label_noise: null for clean labels.")
        self.noises = noises
        kinds = {noise.multi_label: type(noise).__name__ for noise in noises}
        if len(kinds) == 2:
            raise ValueError(f"noises mixes {kinds[True]} for multi-hot labels with {kinds[False]} for class ids.")
        self.needs_inputs = any(noise.needs_inputs for noise in noises)
        self.multi_label = noises[0].multi_label

    def corrupt(
        self,
        labels: Labels,
        num_classes: int,
        generator: np.random.Generator,
        inputs: npt.NDArray[Any] | None,
        index: Labels,
        total: int | None,
    ) -> Labels:
        """Returns the labels after the last noise."""
        for noise in self.noises:
            labels = noise(labels, num_classes, generator, inputs, index, total)
        return labels
