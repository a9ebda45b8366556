"""A training small enough to be written out by hand: a linear network, fixed batches in a fixed order, plain SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from testkit.training import trainer_of
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_perturb.core import PerturbationModule

CLASSES = 4
RATE = 0.5

Logits = Callable[[Tensor], Tensor]


def softmax(u: Tensor) -> Tensor:
    """By its definition."""
    e = torch.exp(u - u.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)


def cross_entropy(u: Tensor, target: Tensor) -> Tensor:
    """-Σ y log p, for rows of probabilities or ids, per sample."""
    if target.ndim == 1:
        target = onehot(target)
    top = u.max(1, keepdim=True).values
    return -(target * (u - top - torch.log(torch.exp(u - top).sum(1, keepdim=True)))).sum(1)


def onehot(y: Tensor) -> Tensor:
    return torch.eye(CLASSES, dtype=torch.float64)[y]


def network() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(6, CLASSES).double()


def batches(views: int = 1) -> list[tuple[Any, Tensor, Tensor]]:
    """Three batches of five samples; pixels in [0, 1]."""
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(15, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (15,), generator=generator)
    other = torch.rand(15, 6, generator=generator, dtype=torch.float64)
    index = torch.randperm(15, generator=generator)
    cuts = [slice(0, 5), slice(5, 10), slice(10, 15)]
    return [((x[c], other[c]) if views == 2 else x[c], y[c], index[c]) for c in cuts]


def domain_of(index: Tensor) -> Tensor:
    """The domain of samples, one of three."""
    return index % 3


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=RATE)


def make(method: type[PerturbationModule], **options: Any) -> PerturbationModule:
    """The method on the network, in double precision."""
    return method(network(), CLASSES, optimizer=options.pop("optimizer", sgd), **options).double()


def train(module: PerturbationModule, epochs: int = 2, views: int = 1, **trainer: Any) -> Tensor:
    """Trains with Lightning; gives the weights ``[C, 7]``, bias last."""
    served: list[Any] = batches(views)
    if module.needs.domains:
        served = [{"x": x, "y": y, "index": i, "domain": domain_of(i)} for x, y, i in served]
    loader = DataLoader(served, batch_size=None)
    trainer_of(max_epochs=epochs, precision="64-true", **trainer).fit(module, loader)
    return weights(module.net)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([net.weight, net.bias[:, None]], 1).detach().clone()


def replay(
    loss: Callable[[Logits, Any, int, int], Tensor],
    epochs: int = 2,
    views: int = 1,
    after: Callable[..., None] | None = None,
) -> Tensor:
    """The same training by hand.

    Args:
        loss: From the network, a batch, the epoch and the batch's number to the batch's loss.
        epochs: Epochs.
        views: Views of each sample.
        after: Called with the logits before the step, the batch, the epoch and the number, once the step is made.
    """
    start = network()
    weight, bias = start.weight.detach().requires_grad_(), start.bias.detach().requires_grad_()
    for epoch in range(epochs):
        for number, batch in enumerate(batches(views)):

            def logits(x: Tensor, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
                return x @ weight.T + bias

            before = logits(batch[0][0] if views == 2 else batch[0]).detach()
            slopes = torch.autograd.grad(loss(logits, batch, epoch, number), (weight, bias))
            weight, bias = (
                (p - RATE * g).detach().requires_grad_() for p, g in zip((weight, bias), slopes, strict=True)
            )
            if after is not None:
                after(before, batch, epoch, number)
    return torch.cat([weight, bias[:, None]], 1).detach()


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Equal, and changed by the training."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(found, weights(network()), atol=1e-3), "nothing was trained"
