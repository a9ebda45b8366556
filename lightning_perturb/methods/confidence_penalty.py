"""Confidence penalty: a loss on predictions of low entropy."""

import math
from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import confidence_penalty


class ConfidencePenalty(PerturbationModule):
    """Charges predictions whose entropy falls below a threshold [tax 20].

    Args:
        beta: β, weight of the penalty.
        tau: τ, entropy in nats below which a prediction is charged. None takes log C, where the hinge never acts and
            the penalty is the negative entropy, the authors' main form.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "hyperparameter", "sample")

    def __init__(self, *args: Any, beta: float = 0.1, tau: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("beta", beta, zero=True)
        if tau is not None:
            check_positive("tau", tau, zero=True)
        self.beta = beta
        self.tau = math.log(self.num_classes) if tau is None else tau

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + β max(0, τ - H(p))."""
        return loss + self.beta * confidence_penalty(logits, self.tau)
