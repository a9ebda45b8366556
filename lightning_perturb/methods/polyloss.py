"""PolyLoss: cross-entropy with other coefficients of its first polynomial terms."""

import math
from typing import Any

from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import poly_loss


class PolyLoss(PerturbationModule):
    """Cross-entropy plus ε_1 (1 - p_y) + ε_2 (1 - p_y)² + ...; with one ε, Poly-1.

    Args:
        epsilons: ε_1, ε_2, ...; published for ImageNet: 2. An ε_j below 0 lowers the loss; from -1/j on down, the loss
            would no longer grow with the error.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "sample")

    def __init__(self, *args: Any, epsilons: tuple[float, ...] = (2.0,), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for j, epsilon in enumerate(epsilons, 1):
            if not (math.isfinite(epsilon) and epsilon > -1 / j):
                raise ValueError(
                    f"epsilons={epsilons} takes the coefficient 1/{j} of (1 - p_y)^{j} to {1 / j + epsilon:g}. Keep "
                    f"its epsilon finite and above {-1 / j:g}."
                )
        self.epsilons = epsilons

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """-log p_y + Σ_j ε_j (1 - p_y)^j."""
        return poly_loss(logits, target, self.epsilons)
