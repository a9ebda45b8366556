"""Directions in the loss that known methods take: a penalty, a teacher, a focus, weights of classes."""

import math

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core.teacher import Teacher
from lightning_perturb.functional import (
    confidence_penalty,
    dlb_loss,
    effective_number_weights,
    inverse_frequency_weights,
)
from lightning_perturb.lattice.pattern import Pattern, log_probability
from lightning_perturb.lattice.site import Site


class LowEntropy(Pattern):
    """The penalty of predictions whose entropy H is below a threshold, max(0, τ - H) [tax 20].

    Args:
        tau: τ in nats; None takes log C, where the penalty is the negative entropy.
    """

    target = "loss"
    lowers = False

    def __init__(self, tau: float | None = None) -> None:
        if tau is not None:
            check_positive("tau", tau, zero=True)
        self.tau = tau

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """max(0, τ - H), with its gradient."""
        tau = math.log(site.module.num_classes) if self.tau is None else self.tau
        return confidence_penalty(site.logits, tau).to(value.dtype)


class Taught(Pattern):
    """The distance from a teacher, T² KL between both tempered predictions: knowledge distillation [tax 14, 15].

    The teacher is frozen, sees the input as the network does, and is no part of the method: a run that is resumed needs
    it again.

    Args:
        teacher: A network, a method of this package, or the checkpoint of one.
        temperature: T of both predictions.
    """

    target = "loss"
    lowers = False

    def __init__(self, teacher: nn.Module | str, temperature: float = 4.0) -> None:
        check_positive("temperature", temperature)
        self.temperature = temperature
        self._teacher = Teacher(teacher)

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """T² KL, with its gradient."""
        module = site.module
        taught = self._teacher.on(module).logits(module, site.batch.view)
        return dlb_loss(site.logits, taught, self.temperature).to(value.dtype)


class Learnt(Pattern):
    """What the focal loss takes off, -(1 - (1 - p_y)^γ) l: the better a sample is learnt, the more.

    Args:
        gamma: γ; 2 in detection, 1 on long tails.
    """

    target = "loss"
    lowers = True
    largest = 1.0

    def __init__(self, gamma: float = 2.0) -> None:
        check_positive("gamma", gamma, zero=True)
        self.gamma = gamma

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """((1 - p_y)^γ - 1) l, with its gradient."""
        log_p = log_probability(value, site)
        # at p_y = 1 the power has no derivative for gamma below 1
        rest = log_p.expm1().neg().clamp(min=torch.finfo(log_p.dtype).tiny)
        return (rest.pow(self.gamma) - 1) * value


class ClassWeight(Pattern):
    """A weight of the class, (w_y - 1) l: the inverse frequency, or the inverse effective number; they sum to C.

    Args:
        beta: β of effective numbers, (1 - β) / (1 - β^n); None takes 1 / n.
    """

    target = "loss"
    largest = 1.0
    needs_counts = True

    def __init__(self, beta: float | None = None) -> None:
        if beta is not None:
            check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.beta = beta

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """(w_y - 1) l."""
        counts = site.module.class_counts.double()
        weights = (
            inverse_frequency_weights(counts) if self.beta is None else effective_number_weights(counts, self.beta)
        )
        return (weights[site.ids(self)].to(value.dtype) - 1) * value
