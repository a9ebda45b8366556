"""Every meta-learned method: its hypergradient, while it trains, is that of the second-order graph of the same step."""

import higher
import pytest
import torch
from lightning.pytorch import Callback
from testkit.cases import case_params
from testkit.training import Recipe, fit
from torch.func import functional_call

from lightning_perturb.core import MetaPerturbationModule
from lightning_perturb.core.features import FeatureModule

META = [case for case in case_params() if issubclass(case.values[0], MetaPerturbationModule)]


def by_higher(module, train, meta, net, rate, learned):
    """By `higher` alone: its patched network, its differentiable SGD and autograd through the step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (patched, differentiable):
        differentiable.step(module._virtual_loss(module.outputs(patched, train), train))
        return torch.autograd.grad(module.meta_loss(patched, meta), learned, allow_unused=True)


def by_nested_backward(module, train, meta, net, rate, learned):
    """By two nested backward passes: the network that `higher` makes has none of the layers whose input is read."""
    named = dict(net.named_parameters())
    loss = module._virtual_loss(module.outputs(lambda x: functional_call(net, named, (x,)), train), train)
    slopes = torch.autograd.grad(loss, list(named.values()), create_graph=True)
    ahead = {name: p - rate * slope for (name, p), slope in zip(named.items(), slopes, strict=True)}
    outer = module.meta_loss(lambda x: functional_call(net, ahead, (x,)), meta)
    return torch.autograd.grad(outer, learned, allow_unused=True)


class Compare(Callback):
    """Before each hypergradient that of the reference, from the same buffers and draws."""

    def __init__(self):
        self.pairs = []

    def setup(self, trainer, module, stage):
        reference = by_nested_backward if isinstance(module, FeatureModule) else by_higher
        own = module.hypergradient

        def hypergradient(train, meta, optimizer, net=None):
            stepped = module.net if net is None else net
            learned = [*module.theta(), *module.transient()]
            (rate,) = {group["lr"] for group in optimizer.param_groups}
            buffers = {name: buffer.clone() for name, buffer in stepped.named_buffers()}
            with torch.random.fork_rng([]):
                expected = reference(module, train.copy(), meta.copy(), stepped, rate, learned)
            for name, buffer in stepped.named_buffers():
                buffer.copy_(buffers[name])
            found = own(train, meta, optimizer, net)
            for p, one, other in zip(learned, found.gradients, expected, strict=True):
                self.pairs.append((one, torch.zeros_like(p) if other is None else other))
            return found

        module.hypergradient = hypergradient


@pytest.mark.parametrize("net", ["mlp", "conv-norm-dropout"])
@pytest.mark.parametrize(("method", "options"), META)
def test_the_hypergradient_is_that_of_the_second_order_graph(method, options, net):
    compare = Compare()
    trainer = {"max_epochs": 3, "precision": "64-true"}
    fit(Recipe(method, options, net=net, data={"samples": 48}, trainer=trainer), callbacks=[compare])
    assert any(expected.norm() > 0 for _, expected in compare.pairs)
    for found, expected in compare.pairs:
        assert (found - expected).norm() <= 1e-10 * expected.norm()
