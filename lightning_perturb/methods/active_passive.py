"""APL: an active loss, which raises the label's probability, and a passive one, which lowers the others'."""

import math
from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive, check_used
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import mae_loss, normalized_cross_entropy, normalized_focal_loss, rce_loss


class ActivePassiveLoss(PerturbationModule):
    """alpha active + beta passive (Ma et al., 2020), APL in [iada Table 5]: both losses are symmetric.

    Args:
        active: Normalised cross-entropy (``nce``) or normalised focal loss (``nfl``).
        passive: 1 - p_y (``mae``) or reverse cross-entropy (``rce``).
        alpha: Weight of the active loss (published with rce: 1 for CIFAR-10, 10 for CIFAR-100).
        beta: Weight of the passive loss (published with rce: 1 for CIFAR-10, 0.1 for CIFAR-100).
        gamma: Focus of ``nfl``.
        A: What stands for the logarithm of 0 in ``rce``; the authors' is log(1e-4).
        detach_weight: Hold the weights of ``nfl`` constant in its gradient, as the published code does.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range, or contradicts the choice of losses.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(
        self,
        *args: Any,
        active: Literal["nce", "nfl"] = "nce",
        passive: Literal["mae", "rce"] = "rce",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.5,
        A: float = math.log(1e-4),
        detach_weight: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("active", active, ("nce", "nfl"))
        check_choice("passive", passive, ("mae", "rce"))
        check_positive("alpha", alpha, zero=True)
        check_positive("beta", beta, zero=True)
        check_positive("gamma", gamma, zero=True)
        check_used("gamma", gamma, 0.5, "active", active, ("nfl",))
        check_used("detach_weight", detach_weight, False, "active", active, ("nfl",))
        check_used("A", A, math.log(1e-4), "passive", passive, ("rce",))
        if not A < 0:
            raise ValueError(f"A={A!r} must be below 0: it stands for the logarithm of 0.")
        self.active = active
        self.passive = passive
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.A = A
        self.detach_weight = detach_weight

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """alpha active + beta passive."""
        if self.active == "nce":
            active = normalized_cross_entropy(logits, target)
        else:
            active = normalized_focal_loss(logits, target, self.gamma, detach_weight=self.detach_weight)
        passive = mae_loss(logits, target) if self.passive == "mae" else rce_loss(logits, target, self.A)
        return self.alpha * active + self.beta * passive
