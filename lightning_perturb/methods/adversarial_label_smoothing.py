"""Adversarial label smoothing: labels moved towards the least likely class."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import adversarial_label_smoothing_target


class AdversarialLabelSmoothing(PerturbationModule):
    """Label smoothing whose share goes to the class that raises the loss most [tax 25, 26].

    Args:
        lam: λ, share of the label that moves. The paper gives none; 0.1 as in label smoothing.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", "negative", "adversarial", "sample")

    def __init__(self, *args: Any, lam: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("lam", lam)
        self.lam = lam

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - λ) e_y + λ e_argmin p."""
        return adversarial_label_smoothing_target(logits, batch.y, self.lam)
