"""The base of methods that leave some of their parameters as they are, in some epochs or in all."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.modes import constant, evaluating
from lightning_perturb.core.module import PerturbationModule


class HoldingModule(PerturbationModule):
    """A method that trains only a part of its parameters, in some epochs or in all.

    What is held has no gradient, so that neither momentum nor weight decay moves it, and the backward pass ends where
    nothing before it is trained. Data-parallel training needs no search for unused parameters.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    def held(self) -> list[nn.Parameter]:
        """The parameters that the current epoch leaves as they are; none here."""
        return []

    @property
    def rests(self) -> bool:
        """Whether the network's batch norm and dropout are those of evaluation in the current epoch; not here."""
        return False

    def all_but(self, trained: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """All parameters of this module that are none of these."""
        # by identity: in the network a layer may have several names
        kept = {id(parameter) for parameter in trained}
        return [parameter for parameter in self.parameters() if id(parameter) not in kept]

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """As in the base; what is held is constant in them."""
        with evaluating(self.net) if self.rests else nullcontext(), constant(self.held()) as held:
            outputs = super().outputs(call, batch)
        return {**outputs, "logits": _joined(outputs["logits"], held)}

    def on_after_backward(self) -> None:
        """Keeps the optimizer from what is held: without a gradient it neither moves nor decays."""
        super().on_after_backward()
        for parameter in self.held():
            parameter.grad = None


def _joined(logits: Tensor, held: list[nn.Parameter]) -> Tensor:
    """The same logits, in whose graph the parameters stand with a gradient of 0: data-parallel training awaits one."""
    if not held:
        return logits
    return logits + torch.cat([parameter.flatten()[:0] for parameter in held]).sum()
