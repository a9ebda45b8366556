"""DomainMix and LISA: who is mixed with whom, and that labels follow."""

import pytest
import torch
from testkit.training import Recipe, module_of
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import LISA, DomainMix, Mixup

LABEL = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 3, 1])
DOMAIN = torch.tensor([0, 0, 1, 0, 1, 1, 2, 2, 1, 0, 2, 1])
COUNT = len(LABEL)


def batch(order=None):
    order = torch.arange(COUNT) if order is None else order
    return Batch(torch.eye(COUNT)[order], LABEL[order], 100 + order, {"domain": DOMAIN[order]})


def pairs(module, order=None):
    """Partners, own weights and targets, found from what becomes of one-hot inputs."""
    step = module.perturb_input(batch(order))
    order = torch.arange(COUNT) if order is None else order
    own = step.x.gather(1, order[:, None]).squeeze(1)
    others = step.x - own[:, None] * torch.eye(COUNT)[order]
    assert bool(((others > 1e-6).sum(1) <= 1).all())
    torch.testing.assert_close(step.x.sum(1), torch.ones(COUNT))
    partner = torch.where(others.sum(1) > 1e-6, others.argmax(1), order)
    target = module.perturb_target(torch.zeros(COUNT, 10), step)
    y = torch.eye(10)
    torch.testing.assert_close(target, own[:, None] * y[LABEL[order]] + (1 - own[:, None]) * y[LABEL[partner]])
    return partner, own


def over_batches(module, count=60):
    for number in range(count):
        module._batch_idx = number
        module._draw_seed = number
        yield pairs(module)


def fits(kind, i, j):
    label, domain = bool(LABEL[i] == LABEL[j]), bool(DOMAIN[i] == DOMAIN[j])
    return {"label": label and not domain, "domain": domain and not label, "mix": not domain}[kind]


@pytest.mark.parametrize(
    ("method", "options", "kinds"),
    [
        (DomainMix, {}, {"mix"}),
        (LISA, {"intra_label": 1.0}, {"label"}),
        (LISA, {"intra_label": 0.0}, {"domain"}),
        (LISA, {}, {"label", "domain"}),
    ],
)
def test_partners_fit_and_all_that_fit_come(method, options, kinds):
    module = module_of(Recipe(method, {"alpha": 5.0, **options}))
    seen, found = {kind: set() for kind in kinds}, []
    for partner, _ in over_batches(module):
        here = [
            kind
            for kind in kinds
            if all(
                fits(kind, i, j) if j != i else not any(fits(kind, i, k) for k in range(COUNT))
                for i, j in enumerate(partner.tolist())
            )
        ]
        assert here, "partners of no kind"
        found.append(here[0])
        seen[here[0]].update(enumerate(partner.tolist()))
    assert set(found) == kinds
    for kind in kinds:
        expected = {(i, j) for i in range(COUNT) for j in range(COUNT) if fits(kind, i, j)}
        assert {(i, j) for i, j in seen[kind] if i != j} == expected


def test_the_share_of_batches_within_a_class():
    module = module_of(Recipe(LISA, {"intra_label": 0.25}))
    within = []
    for number in range(400):
        module._batch_idx = number
        within.append(bool(module.allowed(LABEL, DOMAIN)[0, 2]))
    assert 0.18 < sum(within) / 400 < 0.32


def test_partners_belong_to_samples_and_weights_to_what_is_asked():
    module = module_of(Recipe(LISA, {"intra_label": 1.0}))
    partner, own = pairs(module)
    order = torch.randperm(COUNT)
    again, weight = pairs(module, order)
    assert torch.equal(again, partner[order])
    torch.testing.assert_close(weight, own[order])
    mixed = own[partner != torch.arange(COUNT)]
    assert mixed.unique().numel() > 3
    one = pairs(module_of(Recipe(LISA, {"intra_label": 1.0, "weights": "batch"})))[1]
    assert one[partner != torch.arange(COUNT)].unique().numel() == 1


def test_alone_in_every_respect_nothing_is_mixed():
    module = module_of(Recipe(LISA))
    alone = Batch(torch.eye(3), torch.tensor([0, 1, 2]), torch.arange(3), {"domain": torch.tensor([2, 1, 0])})
    step = module.perturb_input(alone)
    assert torch.equal(step.x, torch.eye(3))
    assert torch.equal(module.perturb_target(torch.zeros(3, 10), step), torch.eye(10)[:3])


def test_features_are_mixed_where_inputs_are_with_a_linear_network():
    # the features of a linear network are its inputs, so both are the same training
    def trained(mix_at):
        module = LISA(nn.Linear(COUNT, 10), 10, mix_at=mix_at, seed=2)
        with torch.no_grad():
            module.net.weight.copy_(torch.linspace(-1, 1, 10 * COUNT).reshape(10, COUNT))
            module.net.bias.zero_()
        step = module.perturb_input(batch())
        outputs = module.outputs(module.net, step)
        loss = module.loss(outputs, step)
        return outputs["logits"], torch.autograd.grad(loss, module.net.weight)[0]

    for one, other in zip(trained("input"), trained("features"), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_flow_through_the_partners_features():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(COUNT, 4), nn.Tanh(), nn.Linear(4, 10))
    module = LISA(net, 10, mix_at="features", intra_label=1.0, seed=2)
    step = module.perturb_input(batch())
    loss = module.loss(module.outputs(net, step), step)
    found = torch.autograd.grad(loss, net[0].weight)[0]
    partner, w = step.extra["mixing_partner"], step.extra["mixing_weight"][:, None]
    h = net[:2](torch.eye(COUNT))
    target = w * torch.eye(10)[LABEL] + (1 - w) * torch.eye(10)[LABEL[partner]]
    expected = nn.functional.cross_entropy(net[2](w * h + (1 - w) * h[partner]), target)
    torch.testing.assert_close(found, torch.autograd.grad(expected, net[0].weight)[0])
    # evaluation mixes nothing
    torch.testing.assert_close(module(torch.eye(COUNT)), net(torch.eye(COUNT)))


def test_what_cannot_be_mixed_is_told():
    text = {"input_ids": torch.ones(2, 3), "labels": torch.tensor([0, 1]), "domain": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"LISA adds a perturbation to the input.*Set mix_at to features, or use"):
        module_of(Recipe(LISA)).perturb_input(Batch.of(text))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (LISA, {"intra_label": 1.5}, r"intra_label=1\.5"),
        (DomainMix, {"mix_at": "logits"}, "mix_at='logits'"),
        (DomainMix, {"classifier": "net"}, "classifier='net' contradicts mix_at='input'"),
        (DomainMix, {"alpha": 0.0}, "alpha=0"),
    ],
)
def test_bad_arguments(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(nn.Linear(3, 2), 2, **options)
    assert issubclass(method, Mixup)
