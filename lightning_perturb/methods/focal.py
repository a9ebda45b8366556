"""Focal loss."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import focal_loss


class Focal(PerturbationModule):
    """The focal loss -(1 - p_y)^γ log p_y, which lowers the loss of samples that are learnt.

    Args:
        gamma: γ; 0 is cross-entropy. 2 in detection, 1 in the long-tail tables that the LPL paper takes over.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(self, *args: Any, gamma: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("gamma", gamma, zero=True)
        self.gamma = gamma

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """-(1 - p_y)^γ log p_y."""
        return focal_loss(logits, target, self.gamma)
