"""Logit adjustment: the class prior in the logits, in training or afterwards, and under LPL."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.functional import log_prior, logit_adjustment
from lightning_perturb.methods.lpl import LPL


class LogitAdjustment(CountedModule):
    """Trains on u_c + τ log π_c, so that the plain logits u need not know the class prior [tax 12; lpl 2].

    π are the shares of the given labels in the training set; evaluation reads the plain logits. At τ = 1 it is the
    balanced softmax (Ren et al., 2020), -log(n_y e^{u_y} / Σ_c n_c e^{u_c}), which has the counts n in the place of π:
    the number of all samples is a factor above and below.

    Args:
        tau: τ, strength of the prior (λ in the LPL paper, searched in {0.5, 1, 1.5, 2, 2.5}); 0 is cross-entropy.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "prior", "corpus")
    paper = "tax"

    log_prior: Tensor

    def __init__(self, *args: Any, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("tau", tau, zero=True)
        self.tau = tau
        self.add_state("log_prior", torch.zeros(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """log π."""
        super().use_counts(counts)
        self.log_prior.copy_(log_prior(counts))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + τ log π."""
        return logit_adjustment(super().perturb_logits(logits, outputs, batch), self.log_prior, self.tau)


class PostHocLogitAdjustment(CountedModule):
    """Trains by plain cross-entropy and predicts by u_c - τ log π_c.

    The adjusted logits are those that evaluation and prediction read; the network's own output is u.

    Args:
        tau: τ, strength of the prior that is taken off; 0 is cross-entropy.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.

    Raises:
        ValueError: In evaluation, if neither training nor a checkpoint told the class counts.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "prior", "corpus")
    paper = "tax"

    def __init__(self, *args: Any, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("tau", tau, zero=True)
        self.tau = tau

    def evaluation_logits(self, x: Any) -> Tensor:
        """u - τ log π."""
        return logit_adjustment(super().evaluation_logits(x), log_prior(self.known_counts()), -self.tau)


class LogitAdjustedLPL(LPL, LogitAdjustment):
    """LA+LPL: the perturbation of LPL starts from the adjusted logits u + τ log π [lpl, after Table VIII].

    Split, confidence and gradients are those of the adjusted logits. With bounds of 0 it is logit adjustment, with τ of
    0 LPL. The paper uses ``split="frequency"`` with 4 and 40 head classes on CIFAR-10-LT and CIFAR-100-LT, and searches
    τ in {0.5, 1, 1.5, 2, 2.5}.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LPL` and
            :class:`~lightning_perturb.methods.LogitAdjustment`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), ("prior", "adversarial"), ("category", "corpus"))
    paper = "lpl"
