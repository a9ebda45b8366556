"""Bootstrapping: labels moved towards the network's own prediction."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import hard_bootstrapping_target, soft_bootstrapping_target


class SoftBootstrapping(PerturbationModule):
    """Labels mixed with the predicted distribution [tax 37].

    Args:
        beta: Weight of the given label (published code: 0.95).
        detach_target: Treat the prediction inside the label as a constant; the published code does not.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", "positive", "prior", "sample")

    def __init__(self, *args: Any, beta: float = 0.95, detach_target: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("beta", beta)
        self.beta = beta
        self.detach_target = detach_target

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """β e_y + (1 - β) p."""
        return soft_bootstrapping_target(logits, batch.y, self.beta, self.detach_target)


class HardBootstrapping(PerturbationModule):
    """Labels mixed with the predicted class [tax 37].

    Args:
        beta: Weight of the given label (published code: 0.8).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", "positive", "prior", "sample")

    def __init__(self, *args: Any, beta: float = 0.8, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("beta", beta)
        self.beta = beta

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """β e_y + (1 - β) e_argmax."""
        return hard_bootstrapping_target(logits, batch.y, self.beta)
