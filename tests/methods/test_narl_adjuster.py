"""NARL-Adjuster over its four losses."""

import math

import pytest
import torch
from testkit.meta import CLASSES, adam, arrays, assert_hypergradient, batches, fit, mlp, sgd

from lightning_perturb.methods import NARLAdjuster

LOSSES = ["gce", "sl", "js", "polysoft"]


def make(robust_loss="gce", **options):
    torch.manual_seed(0)
    options = {"optimizer": sgd, "meta_optimizer": adam, "hidden": 6, **options}
    return NARLAdjuster(mlp(), CLASSES, robust_loss=robust_loss, **options).double()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("robust_loss", LOSSES)
def test_its_hypergradient_is_exact(robust_loss, soft):
    assert_hypergradient(make(robust_loss, soft_range=soft))


def by_hand(robust_loss, p, raw):
    """The loss of one sample from its p_y and the raw outputs, in plain numbers."""
    share = [1 / (1 + math.exp(-value)) for value in raw]
    if robust_loss == "gce":
        q = min(max(1.5 * share[0], 0.01), 1.0)
        return (1 - p**q) / q
    if robust_loss == "sl":
        return share[0] * -math.log(p) + share[1] * 4 * (1 - p)
    if robust_loss == "js":
        pi = min(max(1.4 * share[0], 0.01), 0.99)
        u = pi + (1 - pi) * p
        kl = -pi * math.log(u) + (1 - pi) * (p * math.log(p / u) - (1 - p) * math.log(1 - pi))
        return kl / (-(1 - pi) * math.log(1 - pi))
    lam, d = max(10 * share[0], 1e-3), 1.01 + 4 * share[1]
    rest = max(1 + math.log(p) / lam, 0.0)
    return (d - 1) * lam / d * (1 - rest ** (d / (d - 1)))


@pytest.mark.parametrize("robust_loss", LOSSES)
def test_each_sample_has_its_own_hyperparameters(robust_loss):
    module = make(robust_loss)
    train, _ = batches()
    logits = module.net(train.x)
    others = logits.clone().scatter(1, train.y[:, None], -torch.inf)
    margins = logits.gather(1, train.y[:, None]) - others.max(1, keepdim=True)[0]
    raw = module.meta_net(margins.detach()).tolist()
    p = logits.softmax(1).gather(1, train.y[:, None])[:, 0].tolist()
    expected = [by_hand(robust_loss, *pair) for pair in zip(p, raw, strict=True)]
    found = module.sample_loss(logits, train.y, train)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-8)
    for values in module.hyperparameters(logits, train.y).values():
        assert values.shape == (7,)
        assert not torch.autograd.grad(values.sum(), logits, allow_unused=True, retain_graph=True)[0]


def test_the_adjuster_moves_in_every_tenth_batch():
    module = make()
    trainer = fit(module, arrays(batch_size=2), max_epochs=2)  # 26 batches an epoch
    assert trainer.global_step == 52
    assert {int(state["step"]) for state in trainer.optimizers[1].state.values()} == {6}


def test_faults_are_named():
    with pytest.raises(ValueError, match="robust_loss='huber' is unknown"):
        make("huber")
    with pytest.raises(ValueError, match=r"scale=\[1.0\] does not fit robust_loss='sl'.*2 number.*gamma1 and gamma2"):
        make("sl", scale=[1.0])
    with pytest.raises(ValueError, match=r"scale=\[-1.0\]"):
        make("gce", scale=[-1.0])
