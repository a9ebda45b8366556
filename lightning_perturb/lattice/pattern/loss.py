"""Directions in the loss that need nothing but the loss and the prediction."""

import torch
from torch import Tensor

from lightning_perturb.lattice.pattern.base import Pattern
from lightning_perturb.lattice.site import Site


class _Part(Pattern):
    """A part of the loss, of which an amount of 1 takes all off."""

    target = "loss"
    lowers = True
    signed = True
    largest = 1.0

    def limit(self, direction: str) -> float:
        """1 where it is taken off, none where it is added."""
        return float("inf") if direction == "negative" else self.largest


class Relative(_Part):
    """The loss itself with its sign turned, -l: an amount a multiplies the loss by 1 - a."""

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-l."""
        return -value


class Poly(_Part):
    """The first polynomial term, -(1 - p_y), as PolyLoss; an amount of 1 takes all of it off cross-entropy."""

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-(1 - p_y), with its gradient."""
        return log_probability(value, site).expm1()


class Slack(Pattern):
    """A constant that is taken off, down to 0: max(0, l - a) [tax 17]. What is below it is not trained on."""

    target = "loss"
    lowers = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-1."""
        return -torch.ones_like(value)

    def apply(self, value: Tensor, amount: Tensor, unit: Tensor) -> Tensor:
        """max(0, l - a)."""
        return super().apply(value, amount, unit).clamp(min=0)


def log_probability(value: Tensor, site: Site) -> Tensor:
    """log p_y of the unperturbed prediction ``[B]``, with its gradient, in the type of the losses."""
    log_p = torch.log_softmax(site.logits.to(value.dtype), 1)
    target = site.batch.y
    return log_p.gather(1, target[:, None])[:, 0] if target.ndim == 1 else (log_p * target).sum(1)
