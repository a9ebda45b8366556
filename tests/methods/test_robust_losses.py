"""Robust losses with fixed hyperparameters."""

import math

import pytest
import torch
from testkit.meta import CLASSES, arrays, assert_hypergradient, batches, fit, mlp, sgd

from lightning_perturb.core import MetaPerturbationModule
from lightning_perturb.methods import GCE, JS, MAE, RCE, SL, ActivePassiveLoss, PolySoft, TruncatedGCE


def make(cls, **options):
    torch.manual_seed(0)
    return cls(mlp(), CLASSES, optimizer=sgd, **options).double()


def normalized(probability, gamma):
    """The normalised focal loss of each label, from all probabilities of a sample."""
    losses = [-((1 - p) ** gamma) * math.log(p) for p in probability]
    return [loss / sum(losses) for loss in losses]


def js(p, pi):
    u = pi + (1 - pi) * p
    kl = -pi * math.log(u) + (1 - pi) * (p * math.log(p / u) - (1 - p) * math.log(1 - pi))
    return kl / (-(1 - pi) * math.log(1 - pi))


CASES = [
    (GCE, {"q": 0.3}, lambda p: (1 - p**0.3) / 0.3),
    (GCE, {}, lambda p: (1 - p**0.7) / 0.7),
    (TruncatedGCE, {}, lambda p: (1 - p**0.7) / 0.7),
    (MAE, {}, lambda p: 1 - p),
    (RCE, {"A": -9.0}, lambda p: 9 * (1 - p)),
    (SL, {"gamma1": 2.0, "gamma2": 3.0}, lambda p: -2 * math.log(p) + 12 * (1 - p)),
    (JS, {"pi1": 0.4}, lambda p: js(p, 0.4)),
    (PolySoft, {"lam": 2.0, "d": 3.0}, lambda p: 4 / 3 * (1 - max(1 + math.log(p) / 2, 0) ** 1.5)),
]


@pytest.mark.parametrize(("cls", "options", "formula"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_the_loss_is_the_formula(cls, options, formula):
    module = make(cls, **options)
    train, _ = batches()
    logits = module.net(train.x)
    p = logits.softmax(1).gather(1, train.y[:, None])[:, 0].tolist()
    expected = sum(formula(value) for value in p) / len(p)
    assert float(module.loss({"logits": logits}, train).detach()) == pytest.approx(expected, rel=1e-9)
    fit(make(cls, **options), arrays(meta_size=0))


@pytest.mark.parametrize(
    ("options", "gamma", "passive"),
    [
        ({}, 0.0, lambda p: 4 * math.log(10) * (1 - p)),
        ({"active": "nfl", "gamma": 0.3, "passive": "mae"}, 0.3, lambda p: 1 - p),
        ({"active": "nfl", "A": -2.0, "detach_weight": True}, 0.5, lambda p: 2 * (1 - p)),
    ],
)
def test_the_active_and_the_passive_loss_are_added(options, gamma, passive):
    module = make(ActivePassiveLoss, alpha=2.0, beta=3.0, **options)
    train, _ = batches()
    logits = module.net(train.x)
    rows = zip(logits.softmax(1).tolist(), train.y.tolist(), strict=True)
    expected = [2 * normalized(p, gamma)[y] + 3 * passive(p[y]) for p, y in rows]
    assert float(module.loss({"logits": logits}, train).detach()) == pytest.approx(sum(expected) / len(expected))


def test_truncated_gce_drops_what_stayed_below_k_and_holds_the_choice():
    module = make(TruncatedGCE, k=0.4, prune_from=1, prune_every=2)
    data = arrays(meta_size=0, label_noise=None)
    held = {}

    class Watch(TruncatedGCE):
        def start_epoch(self):
            before = self.label_probability.clone()
            super().start_epoch()
            held[self.current_epoch] = (before, self.kept.clone())

    module.__class__ = Watch
    fit(module, data, max_epochs=4)
    assert held[0][1].all()
    for epoch in (1, 3):
        probability, kept = held[epoch]
        assert torch.equal(kept, probability > 0.4)
        assert 0 < int(kept.sum()) <= len(kept)
    assert not held[1][1].all()
    assert torch.equal(held[2][1], held[1][1])

    train, _ = batches()
    module.kept[:] = True
    module.kept[train.index[:3]] = False
    logits = module.net(train.x).detach().requires_grad_()
    loss = module.loss({"logits": logits}, train)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[:3] == 0).all()
    assert (gradient[3:] != 0).any(1).all()
    p = logits.softmax(1).gather(1, train.y[:, None])[:, 0].detach()
    p[:3] = 0.4
    assert torch.allclose(loss, ((1 - p**0.7) / 0.7).mean())


@pytest.mark.parametrize(
    ("cls", "options", "text"),
    [
        (GCE, {"q": 1.5}, "q=1.5"),
        (TruncatedGCE, {"k": 0.0}, "k=0"),
        (TruncatedGCE, {"prune_every": 0}, "prune_every=0"),
        (RCE, {"A": 1.0}, "A=1.0 must be below 0"),
        (SL, {"gamma1": -1.0}, "gamma1=-1"),
        (PolySoft, {"lam": 0.0}, "lam=0"),
        (PolySoft, {"d": 1.0}, "d=1"),
        (JS, {"pi1": 2.0}, "pi1=2"),
        (ActivePassiveLoss, {"A": 0.0}, "A=0.0 must be below 0"),
        (ActivePassiveLoss, {"gamma": 1.0}, "gamma=1.0 contradicts active='nce'"),
        (ActivePassiveLoss, {"passive": "mae", "A": -4.0}, "A=-4.0 contradicts passive='mae'"),
    ],
)
def test_faults_are_named(cls, options, text):
    with pytest.raises(ValueError, match=text):
        make(cls, **options)


@pytest.mark.parametrize(
    ("cls", "intervals"),
    [
        (GCE, {"q": (0.01, 1.0)}),
        (SL, {"gamma1": (0.0, 20.0), "gamma2": (0.0, 20.0)}),
        (JS, {"pi1": (0.01, 0.99)}),
        (PolySoft, {"lam": (0.1, 20.0), "d": (1.01, 20.0)}),
        (ActivePassiveLoss, {"alpha": (0.0, 20.0), "beta": (0.0, 20.0)}),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_their_hyperparameters_can_be_learned(cls, intervals):
    learned = type(f"Learned{cls.__name__}", (MetaPerturbationModule, cls), {})
    gradients = assert_hypergradient(make(learned, meta_parameters=intervals))
    assert len(gradients) == len(intervals)
