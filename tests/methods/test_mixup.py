"""Mixup and MetaMixUp."""

import pytest
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, batches, fit, mlp, sgd
from testkit.script import assert_same, make, train
from testkit.training import Recipe, module_of

from lightning_perturb.bilevel import NotFirstOrderError
from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, MetaMixUp, Mixup


def pairs(module, batch):
    """Partners and weights that a step uses, found from what it makes of one-hot inputs."""
    tagged = module.perturb_input(Batch(torch.eye(len(batch)).double(), batch.y, batch.index)).x
    return tagged


@pytest.mark.parametrize("weights", ["batch", "sample"])
def test_every_sample_is_mixed_with_another_of_the_batch(weights):
    module = module_of(Recipe(Mixup, {"weights": weights, "seed": 3}))
    batch = Batch(torch.eye(16), torch.arange(16) % 10, torch.arange(100, 116))
    mixed = module.perturb_input(batch.copy()).x
    own = mixed.diagonal()
    others = mixed - torch.diag(own)
    torch.testing.assert_close(mixed.sum(1), torch.ones(16))
    assert bool(((others > 0).sum(1) == 1).all()), "one partner each, never itself"
    partner = others.argmax(1)
    assert sorted(partner.tolist()) == list(range(16)), "everybody is a partner once"
    assert (own.unique().numel() == 1) == (weights == "batch")
    assert own.unique().numel() > 14 or weights == "batch"
    # the label is mixed as the input is
    kept = module.perturb_input(batch.copy())
    target = module.perturb_target(torch.zeros(16, 10), kept)
    y = torch.eye(10)[batch.y]
    torch.testing.assert_close(target, own[:, None] * y + (1 - own[:, None]) * y[partner])
    # partners belong to samples, not to the order in which they come
    order = torch.randperm(16)
    shuffled = module.perturb_input(Batch(torch.eye(16)[order], batch.y[order], batch.index[order])).x
    torch.testing.assert_close(shuffled, mixed[order])


def test_pairs_change_by_epoch_and_batch(monkeypatch):
    module = module_of(Recipe(Mixup, {"seed": 3}))
    batch = Batch(torch.eye(16), torch.arange(16) % 10, torch.arange(16))
    first = module.perturb_input(batch.copy()).x
    module._batch_idx = 1
    second = module.perturb_input(batch.copy()).x
    assert not torch.allclose(first.diagonal(), second.diagonal())
    assert torch.equal((first > 0), (second > 0)), "the same samples in the same epoch"
    monkeypatch.setattr(Mixup, "current_epoch", 1)
    assert not torch.equal(module.perturb_input(batch.copy()).x > 0, first > 0)


def test_a_sample_that_is_alone_stays_as_it_is():
    module = module_of(Recipe(Mixup))
    one = module.perturb_input(Batch(torch.ones(1, 4), torch.tensor([2]), torch.tensor([7])))
    assert torch.equal(one.x, torch.ones(1, 4))
    assert module.perturb_target(torch.zeros(1, 10), one).argmax() == 2


def test_huge_and_tiny_alpha():
    # weights of one half; weights of nearly 0 or 1
    batch = Batch(torch.eye(16), torch.arange(16) % 10, torch.arange(16))
    half = module_of(Recipe(Mixup, {"alpha": 1e8})).perturb_input(batch.copy()).x
    torch.testing.assert_close(half.diagonal(), torch.full((16,), 0.5), atol=1e-3, rtol=0)
    whole = module_of(Recipe(Mixup, {"alpha": 1e-4, "weights": "sample"})).perturb_input(batch.copy()).x
    assert bool((whole.max(1).values > 0.99).all())


@pytest.mark.parametrize(("options", "message"), [({"alpha": 0.0}, "alpha=0"), ({"weights": "epoch"}, "weights=")])
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(Mixup, **options)


# MetaMixUp --------------------------------------------------------------------------------------------------------


def meta(**options):
    torch.manual_seed(0)
    return MetaMixUp(mlp(), CLASSES, **{"optimizer": sgd, "seed": 4, **options}).double()


def test_its_hypergradient_by_two_backward_passes():
    module, (train_batch, clean) = meta(), batches()
    batch = module.perturb_input(train_batch.copy())
    found = module.hypergradient(batch, clean, 0.7)
    (gradient,) = found.gradients

    plain = Mixup(mlp(), CLASSES, seed=4, weights="sample").double()
    mixed = plain.perturb_input(Batch(torch.eye(7).double(), train_batch.y, train_batch.index)).x
    w = mixed.diagonal().clone().requires_grad_()
    partner = (mixed - torch.diag(mixed.diagonal())).argmax(1)
    x = w[:, None] * train_batch.x + (1 - w[:, None]) * train_batch.x[partner]
    y = F.one_hot(train_batch.y, CLASSES).double()
    target = w[:, None] * y + (1 - w[:, None]) * y[partner]
    names, values = zip(*module.net.named_parameters(), strict=True)
    loss = F.cross_entropy(torch.func.functional_call(module.net, dict(zip(names, values, strict=True)), x), target)
    slopes = torch.autograd.grad(loss, values, create_graph=True)
    moved = {n: v - 0.7 * s for n, v, s in zip(names, values, slopes, strict=True)}
    outer = F.cross_entropy(torch.func.functional_call(module.net, moved, (clean.x,)), clean.y)
    (expected,) = torch.autograd.grad(outer, w)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)
    assert expected.norm() > 0


def test_the_real_step_uses_moved_weights_inside_their_range():
    module, (train_batch, clean) = meta(policy_lr=50.0), batches()
    batch = module.perturb_input(train_batch.copy())
    drawn = module._pair_weight.clone()
    found = module.hypergradient(batch, clean, 0.7)
    module._meta_step(found, [], 0)
    expected = (drawn - 50.0 * 7 * found.gradients[0]).clamp(0, 1)
    torch.testing.assert_close(module._pair_weight, expected)
    assert bool((expected != drawn).any())
    logits = found.training_outputs()["logits"]
    plain = Mixup(mlp(), CLASSES, seed=4, weights="sample").double()
    mixed = plain.perturb_input(Batch(torch.eye(7).double(), train_batch.y, train_batch.index)).x
    partner = (mixed - torch.diag(mixed.diagonal())).argmax(1)
    x = expected[:, None] * train_batch.x + (1 - expected[:, None]) * train_batch.x[partner]
    torch.testing.assert_close(logits, module.net(x))


@pytest.mark.parametrize("weights", ["batch", "sample"])
def test_without_a_step_it_is_mixup(weights):
    one = meta(policy_lr=0.0, weights=weights)
    fit(one, max_epochs=2)
    torch.manual_seed(0)
    other = Mixup(mlp(), CLASSES, optimizer=sgd, seed=4, weights=weights).double()
    fit(other, max_epochs=2)
    for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    moved = meta(policy_lr=5.0, weights=weights)
    fit(moved, max_epochs=2)
    assert not torch.allclose(next(moved.net.parameters()), next(one.net.parameters()), atol=1e-4)


def test_engines_that_do_not_reach_the_weights_say_so():
    module, (train_batch, clean) = meta(engine="forward"), batches()
    with pytest.raises(NotFirstOrderError, match="Take engine='auto' or engine='higher'"):
        module.hypergradient(module.perturb_input(train_batch.copy()), clean, 0.7)


def test_plain_training_is_not_the_same():
    assert_same(train(make(CrossEntropy)), train(make(CrossEntropy)))
    assert not torch.allclose(train(make(Mixup)), train(make(CrossEntropy)), atol=1e-3)


def test_meta_options():
    with pytest.raises(ValueError, match="policy_lr=-1"):
        meta(policy_lr=-1.0)
