"""The passes over a network: counted in a step of a method, and timed by themselves for its floor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from speed_contenders import Options
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb.core import Batch
from lightning_perturb.core.modes import evaluating


@dataclass
class Passes:
    """Passes over the network in one step, in parts of the batch.

    Attributes:
        forward: Forward passes.
        attack: Backward passes to the input.
        training: Backward passes to the weights.
    """

    forward: float = 0.0
    attack: float = 0.0
    training: float = 0.0

    @property
    def units(self) -> float:
        """Forward 1, gradient in the input 1, gradient in the weights 2."""
        return self.forward + self.attack + 2 * self.training

    @property
    def plain(self) -> bool:
        """Whether these are the passes of cross-entropy."""
        return self == Passes(1.0, 0.0, 1.0)

    def floor(self, times: dict[str, float]) -> float:
        """Seconds of these passes and one optimizer step, from the times of the probes."""
        rest = self.forward - self.attack - self.training
        passes = self.attack * times["attack"] + self.training * times["training"] + rest * times["forward"]
        return passes + times["optimizer"]


@contextmanager
def counted(net: nn.Module, batch_size: int) -> Iterator[Passes]:
    """Counts the passes over a network; a pass to an input that wants a gradient is an attack."""
    passes = Passes()

    def on_forward(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        x: Tensor = args[0]
        part = len(x) / batch_size
        kind = "attack" if x.requires_grad else "training"
        passes.forward += part
        if output.requires_grad:
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda _: setattr(passes, kind, getattr(passes, kind) + part)
            )

    handle = net.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()


class Probes:
    """The passes of which floors are made, in bare PyTorch."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.net = options.build_net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def forward(self, batch: Batch) -> None:
        """A forward pass without gradient."""
        with torch.no_grad(), evaluating(self.net), self.options.autocast():
            self.net(batch.view)

    def attack(self, batch: Batch) -> None:
        """A forward pass and the gradient of its loss in the input."""
        assert isinstance(batch.view, Tensor)
        with evaluating(self.net), self.options.autocast():
            x = batch.view.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(self.net(x), batch.y, reduction="sum"), x)

    def training(self, batch: Batch) -> None:
        """A forward pass and the gradient of its loss in the weights."""
        self.optimizer.zero_grad()
        with self.options.autocast():
            loss = F.cross_entropy(self.net(batch.view), batch.y)
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self, batch: Batch) -> None:
        """An optimizer step on the gradients of the last training pass."""
        self.optimizer.step()

    def times(self, batch: Batch) -> dict[str, float]:
        """Seconds of each, as :meth:`Passes.floor` reads them."""
        passes = {
            "forward": self.forward,
            "attack": self.attack,
            "training": self.training,
            "optimizer": self.update,
        }
        return {name: timed(self.options, partial(run, batch)) for name, run in passes.items()}


def timed(options: Options, run: Callable[[], None]) -> float:
    """Seconds until the device has done what a function tells it."""
    options.wait()
    start = time.perf_counter()
    run()
    options.wait()
    return time.perf_counter() - start
