"""Re-weighting by class frequency for several labels at once."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, CountedModule, MultiLabelModule
from lightning_perturb.functional import inverse_frequency_weights


class MultiLabelReWeighting(CountedModule, MultiLabelModule):
    """The binary losses of a class, of positives and of negatives, times a weight 1 / n_c^power [lpl Table V, RW].

    The weights are scaled to sum to the number of classes.

    Args:
        power: 0.5 (inverse square root of the frequency) or 1 (inverse frequency), as in the published code; 0 weights
            nothing.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "category")

    weights: Tensor

    def __init__(self, *args: Any, power: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("power", power, zero=True)
        self.power = power
        self.add_state("weights", torch.ones(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The weight of each class."""
        super().use_counts(counts)
        self.weights.copy_(inverse_frequency_weights(counts.double() ** self.power))

    def entry_losses(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Weighted losses ``[B, C]``."""
        losses = super().entry_losses(logits, target, batch)
        return losses * self.weights.to(losses.dtype)
