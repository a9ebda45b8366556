"""ProSelfLC: labels that trust the prediction more as training goes on and as it grows confident."""

import math
from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import proselflc_target, trust


class ProSelfLC(PerturbationModule):
    """Progressive self label correction.

    Args:
        B: Sharpness of the growing trust; the published grid is 4 to 14 in steps of 2.
        r: Share of the training after which trust is half; the published grid is 0.2 to 0.7.
        total_steps: Steps over which trust grows; None takes the Trainer's.
        detach_target: Treat the prediction inside the label as a constant; the published code does not.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", "positive", "prior", "sample")

    def __init__(
        self,
        *args: Any,
        B: float = 6.0,
        r: float = 0.3,
        total_steps: int | None = None,
        detach_target: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("B", B)
        check_range("r", r, 0.0, 1.0)
        if total_steps is not None:
            check_positive("total_steps", total_steps)
        self.B = B
        self.r = r
        self.total_steps = total_steps
        self.detach_target = detach_target

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - ε_i) e_y + ε_i p."""
        total = self.total_steps or self.trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError(
                "The Trainer has no end to stretch the trust over. Set max_epochs, max_steps or total_steps."
            )
        step = min(self.global_step + 1, total)
        return proselflc_target(logits, batch.y, trust(step, total, self.B, self.r), self.detach_target)
