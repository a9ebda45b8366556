"""The place in the training loss where a cell acts, and what the loss is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        plain: The losses of the target as it is ``[B]``, constants.
        outputs: What the network gave, with its graph: ``logits`` ``[B, C]``, and ``features`` and ``weight`` where a
            cell reads them; empty before the network.
    """

    module: PerturbationModule
    slot: str
    batch: Batch
    losses: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    plain: Callable[[], Tensor]
    outputs: dict[str, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The type of numbers that are given: that of the parameters, double or single."""
        return torch.float64 if self.module.dtype == torch.float64 else torch.float32

    @property
    def logits(self) -> Tensor:
        """The raw logits ``[B, C]``, with their graph."""
        return self.outputs["logits"]

    def plain_losses(self) -> Tensor:
        """The losses with nothing perturbed ``[B]``, constants; once for all cells of a batch.

        Before the network has run, they are those of an extra pass in evaluation mode.
        """
        known = self.batch.extra.get("plain_losses")
        if known is None:
            known = self.batch.extra["plain_losses"] = self.plain().detach()
        return known

    def ids(self, reader: object) -> Tensor:
        """The class ids ``[B]``, for what needs them.

        Args:
            reader: What reads them.

        Raises:
            ValueError: If the labels are soft.
        """
        y = self.batch.y
        if y.ndim != 1:
            raise ValueError(
                f"{type(reader).__name__} needs class ids [B]; the labels have the shape {tuple(y.shape)}. Yield ids, "
                "or leave it away."
            )
        return y


def feature_site(module: PerturbationModule, slot: str, batch: Batch) -> Site:
    """x: losses and gradients are those of the network in evaluation mode."""
    known = batch.view
    assert isinstance(known, Tensor)

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

    return Site(module, slot, batch, losses, gradient, lambda: losses(known))


def deep_site(module: PerturbationModule, slot: str, batch: Batch, features: Tensor, layer: nn.Linear) -> Site:
    """h, what enters the classifier: losses and gradients are those of this one layer, in closed form."""
    weight = layer.weight.detach().to(features.dtype)
    bias = None if layer.bias is None else layer.bias.detach().to(features.dtype)

    def logits(h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            return F.linear(h.detach(), weight, bias)

    def losses(h: Tensor) -> Tensor:
        return cross_entropy(logits(h), batch.y)

    def gradient(h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            return logit_gradient(logits(h), batch.y) @ weight

    return Site(module, slot, batch, losses, gradient, lambda: losses(features))


def logit_site(module: PerturbationModule, slot: str, batch: Batch, outputs: dict[str, Tensor]) -> Site:
    """u."""
    y = batch.y
    return Site(
        module, slot, batch, lambda u: cross_entropy(u, y), lambda u: logit_gradient(u, y), _of(outputs, y), outputs
    )


def label_site(module: PerturbationModule, slot: str, batch: Batch, outputs: dict[str, Tensor]) -> Site:
    """y: the loss is linear in it, with the slope -log p."""
    raw = outputs["logits"].detach()
    log_prob = torch.log_softmax(raw if raw.dtype == torch.float64 else raw.float(), 1)
    plain = _of(outputs, batch.y)
    return Site(module, slot, batch, lambda t: cross_entropy(raw, t), lambda _: -log_prob, plain, outputs)


def loss_site(module: PerturbationModule, slot: str, batch: Batch, outputs: dict[str, Tensor]) -> Site:
    """l."""
    return Site(module, slot, batch, lambda loss: loss, torch.ones_like, _of(outputs, batch.y), outputs)


def _of(outputs: dict[str, Tensor], y: Tensor) -> Callable[[], Tensor]:
    return lambda: cross_entropy(outputs["logits"].detach(), y)
