"""Label smoothing."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import smooth


class LabelSmoothing(PerturbationModule):
    """Labels mixed with the uniform distribution [tax 26].

    Args:
        eps: Weight of the uniform distribution (0.1, as in the comparison of online label smoothing).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", ("positive", "negative"), "prior", "sample")

    def __init__(self, *args: Any, eps: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("eps", eps)
        self.eps = eps

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - ε) e_y + ε / C."""
        return smooth(batch.y, self.num_classes, self.eps)
