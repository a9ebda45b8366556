"""The place in the training loss where a cell acts, and what the loss is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.modes import evaluating
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.functional import cross_entropy, logit_gradient


@dataclass(frozen=True)
class Site:
    """One of the four targets in one batch: x, u, y or l.

    Attributes:
        module: The method; it has the network, the draws and the state.
        slot: Name of the cell in the method, prefix of its state.
        batch: The batch.
        losses: The loss of each sample ``[B]`` by the target's value.
        gradient: The gradient of each sample's loss in the target's value, in its shape; a constant.
        logits: The raw logits ``[B, C]`` with their graph; None before the network.
    """

    module: PerturbationModule
    slot: str
    batch: Batch
    losses: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    logits: Tensor | None = None

    def plain_losses(self) -> Tensor:
        """The losses with nothing perturbed ``[B]``, constants; once for all cells of a batch.

        Where a cell asks before the network has run, they are those of an extra pass in evaluation mode.
        """
        known = self.batch.extra.get("plain_losses")
        if known is None:
            with torch.no_grad():
                known = self.losses(_input(self.batch)) if self.logits is None else self._of_logits()
            self.batch.extra["plain_losses"] = known
        return known

    def _of_logits(self) -> Tensor:
        assert self.logits is not None
        return cross_entropy(self.logits.detach(), self.batch.y)


def _input(batch: Batch) -> Tensor:
    view = batch.view
    assert isinstance(view, Tensor)
    return view


def feature_site(module: PerturbationModule, slot: str, batch: Batch) -> Site:
    """x: losses and gradients are those of the network in evaluation mode."""

    def losses(x: Tensor) -> Tensor:
        with evaluating(module.net), torch.no_grad():
            found = cross_entropy(module.run(module.net, x), batch.y)
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        return found

    def gradient(x: Tensor) -> Tensor:
        with evaluating(module.net), torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(cross_entropy(module.run(module.net, x), batch.y).sum(), x)
        return found

    return Site(module, slot, batch, losses, gradient)


def logit_site(module: PerturbationModule, slot: str, batch: Batch, logits: Tensor) -> Site:
    """u."""
    y = batch.y
    return Site(module, slot, batch, lambda u: cross_entropy(u, y), lambda u: logit_gradient(u, y), logits)


def label_site(module: PerturbationModule, slot: str, batch: Batch, logits: Tensor) -> Site:
    """y: the loss is linear in it, with the slope -log p."""
    raw = logits.detach()
    log_prob = torch.log_softmax(raw if raw.dtype == torch.float64 else raw.float(), 1)
    return Site(module, slot, batch, lambda t: cross_entropy(raw, t), lambda _: -log_prob, logits)


def loss_site(module: PerturbationModule, slot: str, batch: Batch, logits: Tensor) -> Site:
    """l."""
    return Site(module, slot, batch, lambda loss: loss, torch.ones_like, logits)
