"""IRM, IB-IRM, V-REx and CORAL by hand, one domain at a time, by the definitions of their papers."""

from itertools import combinations

import pytest
import torch
from testkit.script import assert_same, cross_entropy, domain_of, make, replay, train
from testkit.training import Recipe, fit

from lightning_perturb.methods import CORAL, IBIRM, IRM, CrossEntropy, VREx


def irm(logits, y, x):
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy(scale * logits, y).mean(), scale, create_graph=True)
    return slope.square()


def by_domain(term, among=lambda y, index: domain_of(index)):
    """The mean of a term over domains; the linear network's features are its inputs."""

    def of(logits, batch):
        x, y, index = batch
        domain = among(y, index)
        return torch.stack([term(logits(x)[domain == d], y[domain == d], x[domain == d]) for d in domain.unique()])

    return of


def risks(among=lambda y, index: domain_of(index)):
    return by_domain(lambda u, y, x: cross_entropy(u, y).mean(), among)


def group_of(y, index):
    return y * 3 + domain_of(index)


def test_irm_by_hand_with_annealing():
    def loss(logits, batch, epoch, number):
        weight = 7.0 if 3 * epoch + number >= 4 else 1.0
        return risks()(logits, batch).mean() + weight * by_domain(irm)(logits, batch).mean()

    assert_same(train(make(IRM, weight=7.0, anneal_steps=4)), replay(loss))


def test_a_small_weight_is_never_annealed_from_above():
    def loss(logits, batch, *_):
        return risks()(logits, batch).mean() + 0.3 * by_domain(irm)(logits, batch).mean()

    assert_same(train(make(IRM, weight=0.3)), replay(loss))


def test_groups_as_domains_the_mean_over_samples_and_rescaling():
    def loss(logits, batch, *_):
        plain = cross_entropy(logits(batch[0]), batch[1]).mean()
        return (plain + 20 * by_domain(irm, group_of)(logits, batch).mean()) / 20

    options = {"environments": "group", "num_domains": 3, "risk": "samples", "rescale": True}
    assert_same(train(make(IRM, weight=20.0, anneal_steps=0, **options)), replay(loss))


def test_vrex_by_hand():
    def loss(logits, batch, *_):
        found = risks()(logits, batch)
        return found.mean() + 5 * (found - found.mean()).square().mean()

    assert_same(train(make(VREx, weight=5.0, anneal_steps=0)), replay(loss))


@pytest.fixture
def deep():
    """A network with features that training moves, and its last batch's penalties."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)).double()
    x = torch.rand(24, 6, dtype=torch.float64)
    return net, {"x": x, "y": torch.arange(24) % 4, "domain": torch.arange(24) % 7 % 3}


def step(method, deep, **options):
    net, batch = deep
    module = method(net, 4, **options)
    module.log = lambda *_, **__: None
    loss = module.training_step(batch, 0)["loss"]
    h = net[:2](batch["x"])
    domains = [batch["domain"] == d for d in range(3)]
    risk = torch.stack([cross_entropy_of(net(batch["x"][d]), batch["y"][d]) for d in domains]).mean()
    return loss, risk, [h[d] for d in domains]


def cross_entropy_of(logits, y):
    return torch.nn.functional.cross_entropy(logits, y)


@pytest.mark.parametrize("means", [True, False])
def test_coral_over_pairs(deep, means):
    loss, risk, features = step(CORAL, deep, weight=3.0, means=means)
    pairs = [
        (torch.cov(a.T) - torch.cov(b.T)).square().mean() + means * (a.mean(0) - b.mean(0)).square().mean()
        for a, b in combinations(features, 2)
    ]
    expected = risk + 3 * torch.stack(pairs).mean()
    torch.testing.assert_close(loss, expected)
    parameters = list(deep[0].parameters())
    for ours, theirs in zip(*(torch.autograd.grad(v, parameters) for v in (loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_ib_irm_adds_the_variance_of_features(deep):
    plain = step(IRM, deep, weight=2.0, anneal_steps=0)[0]
    loss, _, features = step(IBIRM, deep, weight=2.0, ib_weight=5.0, anneal_steps=0)
    expected = plain + 5 * torch.stack([h.var(0).mean() for h in features]).mean()
    torch.testing.assert_close(loss, expected)
    early = step(IBIRM, deep, weight=2.0, ib_weight=5.0, anneal_steps=1)[0]
    torch.testing.assert_close(early, step(IRM, deep, weight=1.0)[0])


def test_a_single_domain_is_cross_entropy_where_nothing_is_compared():
    batch = {"weight": 50.0, "risk": "samples"}
    for method in (VREx, CORAL):
        one = make(method, **batch)
        one.domains = lambda batch: torch.zeros_like(batch.y)
        torch.testing.assert_close(train(one), train(make(CrossEntropy)))


def test_risks_become_alike():
    data = {"samples": 200, "noise": 0.0, "domains": 2}
    spread = {}
    for weight in (0.0, 10.0):
        module = fit(Recipe(VREx, {"weight": weight, "anneal_steps": 0}, data=data)).lightning_module
        data_module = module.trainer.datamodule
        batches = [data_module.on_after_batch_transfer(b, 0) for b in data_module.train_dataloader()]
        with torch.no_grad():
            parts = [(b.extra["domain"], cross_entropy_rows(module(b.x), b.y)) for b in batches]
        domain, losses = (torch.cat(p) for p in zip(*parts, strict=True))
        spread[weight] = abs(float(losses[domain == 0].mean() - losses[domain == 1].mean()))
    assert spread[10.0] < spread[0.0]


def cross_entropy_rows(logits, y):
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")
