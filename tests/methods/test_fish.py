"""Fish by hand: inner steps by domain, then a part of the way."""

import pytest
import torch
from testkit.script import RATE, assert_same, batches, cross_entropy, domain_of, make, network, replay, train, weights
from testkit.training import Recipe, fit, tiny_data, trainer_of
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, Fish


def by_hand(orders, rate, epochs=2, momentum=0.0):
    """The published algorithm; the optimizer's momentum goes on from batch to batch."""
    net = network()
    inner = torch.optim.SGD(net.parameters(), lr=RATE, momentum=momentum)
    for epoch in range(epochs):
        for number, (x, y, index) in enumerate(batches()):
            before = [p.detach().clone() for p in net.parameters()]
            for d in orders[3 * epoch + number]:
                inner.zero_grad()
                own = domain_of(index) == d
                cross_entropy(net(x[own]), y[own]).mean().backward()
                inner.step()
            with torch.no_grad():
                for p, first in zip(net.parameters(), before, strict=True):
                    p.copy_(first + rate * (p - first))
    return weights(net)


@pytest.mark.parametrize(("rate", "momentum"), [(0.3, 0.0), (1.0, 0.0), (0.5, 0.9)])
def test_by_hand(rate, momentum):
    def sgd(params):
        return torch.optim.SGD(params, lr=RATE, momentum=momentum)

    module, orders = make(Fish, outer_rate=rate, optimizer=sgd, seed=0), []
    draw = module._order

    def noted(domain):
        steps = draw(domain)
        orders.append([d for d, _ in steps])
        assert sorted(steps) == [(d, int((domain == d).sum())) for d in domain.unique().tolist()]
        return steps

    module._order = noted
    found = train(module)
    assert_same(found, by_hand(orders, rate, momentum=momentum))
    assert len({tuple(order) for order in orders}) > 1, "the order of the domains never changes"


def test_a_single_domain_is_cross_entropy():
    one = make(Fish, outer_rate=1.0)
    one.domains = lambda batch: torch.zeros_like(batch.y)
    assert_same(train(one), replay(lambda u, b, *_: cross_entropy(u(b[0]), b[1]).mean()))
    still = make(Fish, outer_rate=0.0)
    assert torch.equal(train(still), weights(network()))


def test_what_is_told_is_in_the_order_of_the_batch():
    module = make(Fish, outer_rate=0.0)
    steps = []
    step = module.training_step
    module.training_step = lambda batch, batch_idx: steps.append((batch, step(batch, batch_idx))) or steps[-1][1]
    # with a rate of nearly 0 the network is the same in all inner steps
    module.optimizer = lambda params: torch.optim.SGD(params, lr=1e-12)
    train(module)
    for batch, told in steps:
        torch.testing.assert_close(told["logits"], network()(batch["x"]).detach())
        losses = cross_entropy(told["logits"], batch["y"])
        torch.testing.assert_close(told["sample_loss"], losses)
        torch.testing.assert_close(told["loss"], losses.mean())


def test_gradients_are_clipped_in_each_inner_step():
    module, norms = make(Fish, gradient_clip_val=0.01, outer_rate=1.0), []
    clip = module._clip

    def noted(moved):
        clip(moved)
        norms.append(float(torch.cat([p.grad.flatten() for p in moved]).norm()))

    module._clip = noted
    train(module)
    assert len(norms) > 6
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_inner_products_of_gradients_grow():
    """Half the square of the rate times each inner product is what Fish gains beside the mean loss."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 6, dtype=torch.float64), torch.arange(40) % 4
    domain = torch.arange(40) % 7 % 2
    net = nn.Linear(6, 4).double()
    rate, start = 1e-3, [p.detach().clone() for p in net.parameters()]

    def gradient(d, at):
        value = nn.functional.cross_entropy(nn.functional.linear(x[domain == d], *at), y[domain == d])
        return torch.autograd.grad(value, at, create_graph=True)

    at = [p.clone().requires_grad_() for p in start]
    one, other = gradient(0, at), gradient(1, at)
    product = sum((a * b).sum() for a, b in zip(one, other, strict=True))
    slope = torch.autograd.grad(product, at)
    moves = []
    for order in ([0, 1], [1, 0]):
        module = Fish(net, 4, optimizer=lambda p: torch.optim.SGD(p, lr=rate), outer_rate=1.0).double()
        module._order = lambda domain, order=order: [(d, int((domain == d).sum())) for d in order]
        with torch.no_grad():
            for p, first in zip(net.parameters(), start, strict=True):
                p.copy_(first)
        loader = torch.utils.data.DataLoader([{"x": x, "y": y, "domain": domain}], batch_size=None)
        trainer_of(max_epochs=1, precision="64-true").fit(module, loader)
        moves.append([p.detach() - first for p, first in zip(net.parameters(), start, strict=True)])
    for k in range(2):
        mean = (moves[0][k] + moves[1][k]) / 2
        expected = -rate * (one[k] + other[k]) + rate**2 / 2 * slope[k]
        torch.testing.assert_close(mean, expected.detach(), rtol=1e-6, atol=1e-11)
        assert float((rate**2 / 2 * slope[k]).abs().max()) > 1e-8


def test_rows_of_a_batch():
    batch = Batch(
        (torch.arange(4), torch.arange(4) + 10), torch.arange(4), torch.arange(4) * 2, {"domain": torch.ones(4)}
    )
    some = batch.rows(torch.tensor([3, 1]))
    assert [view.tolist() for view in some.x] == [[3, 1], [13, 11]]
    assert (some.y.tolist(), some.index.tolist(), len(some.extra["domain"])) == ([3, 1], [6, 2], 2)


def test_faults():
    with pytest.raises(ValueError, match=r"outer_rate=1\.5"):
        make(Fish, outer_rate=1.5)
    with pytest.raises(ValueError, match=r"gradient_clip_val=-1"):
        make(Fish, gradient_clip_val=-1.0)
    with pytest.raises(ValueError, match=r"Give gradient_clip_val=1\.0 to Fish"):
        trainer_of(max_epochs=1, gradient_clip_val=1.0).fit(make(Fish), tiny_data(domains=2))


def test_schedules_by_step_go_on_once_a_batch():
    recipe = Recipe(Fish, {"lr_interval": "step"}, trainer={"max_epochs": 2})
    rate = fit(recipe).optimizers[0].param_groups[0]["lr"]
    plain = fit(Recipe(CrossEntropy, {"lr_interval": "step"}, trainer={"max_epochs": 2}))
    assert rate == pytest.approx(plain.optimizers[0].param_groups[0]["lr"])
