"""DisturbLabel."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import disturb_label


class DisturbLabel(PerturbationModule):
    """Labels of which a share is redrawn from all classes, anew in every epoch (Xie et al., 2016).

    Args:
        alpha: Share of labels that are redrawn: 0.2 in a published implementation, 0.1 in another; 0 is cross-entropy.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", ("positive", "negative"), "prior", "sample")

    def __init__(self, *args: Any, alpha: float = 0.2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("alpha", alpha)
        self.alpha = alpha

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """The given label, or one that the sample draws in this epoch."""
        return disturb_label(batch.y, self.uniform("disturb_label", batch), self.num_classes, self.alpha)
