"""One step of the bilevel problem: what every engine needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lightning_perturb.bilevel.replay import Call, Moment, copied_buffers, substituted

Outputs = Callable[[Call, Any], dict[str, Tensor]]
Loss = Callable[[dict[str, Tensor], Any], Tensor]
MetaLoss = Callable[[Call, Any], Tensor]
Reduce = Callable[[list[Tensor]], list[Tensor]]

NO_META = (
    "the inner loss does not depend on any meta parameter, so there is nothing to learn. Look for a detach() on the "
    "way from the meta parameters to the loss, or leave out the meta step in this phase."
)


@dataclass(frozen=True)
class Step:
    """The functions, batches and parameters of one virtual step.

    Args:
        net: the network.
        outputs: runs the network on a batch.
        loss: L from the outputs.
        meta_loss: M on the meta batch.
        reduce: mean over ranks.
        train_batch: batch of the inner loss.
        meta_batch: batch of the outer loss.
        theta: the meta parameters.
        ahead: the parameters that the virtual step moves, by name.
        sgd: the inner rule.
        start: the buffers and random state from which the training forward starts.
    """

    net: nn.Module
    outputs: Outputs
    loss: Loss
    meta_loss: MetaLoss
    reduce: Reduce
    train_batch: Any
    meta_batch: Any
    theta: list[Tensor]
    ahead: dict[str, nn.Parameter]
    sgd: SGD
    start: Moment

    def call(self, ahead: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Call:
        """The network with other look-ahead parameters; the rest constant, but for meta parameters inside it."""
        theta = {id(parameter) for parameter in self.theta}
        rest = {n: p if id(p) in theta else p.detach() for n, p in self.net.named_parameters() if n not in ahead}
        return substituted(self.net, {**rest, **ahead}, buffers)

    def replay(self, ahead: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The outputs of the training forward with other parameters: same buffers (or those given), same draws."""
        with self.start.random_state():
            buffers = self.start.buffers() if buffers is None else buffers
            return self.outputs(self.call(ahead, buffers), self.train_batch)

    def require_pure(self, loss: Tensor) -> None:
        """Raises a ValueError if the loss reads a look-ahead parameter past the outputs; free if it does not."""
        found = torch.autograd.grad(loss, list(self.ahead.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(self.ahead, found, strict=True):
            if gradient is not None:
                raise ValueError(
                    f"the loss reads the parameter {name!r} of the network directly. Return it from outputs, and let "
                    "the loss take it from there."
                )

    def meta_gradient(self, stepped: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """M(ŵ), its gradient in ŵ (mean over ranks), and in θ where the meta loss contains θ itself."""
        leaves = {name: value.detach().requires_grad_() for name, value in stepped.items()}
        value = self.meta_loss(self.call(leaves, copied_buffers(self.net)), self.meta_batch)
        inputs = [*leaves.values(), *self.theta]
        gradients = filled(torch.autograd.grad(value, inputs, allow_unused=True), inputs)
        return value.detach(), self.reduce(gradients[: len(leaves)]), gradients[len(leaves) :]


def filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """The gradients, zeros where there is none."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, like, strict=True)]


def depends(outputs: Mapping[str, Tensor], theta: Sequence[Tensor]) -> bool:
    """Whether any output depends on a meta parameter. Free where none does: the graph is only searched."""
    attached = [output for output in outputs.values() if output.requires_grad]
    if not attached:
        return False
    zeros = [torch.zeros_like(output) for output in attached]
    found = torch.autograd.grad(attached, theta, zeros, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in found)
