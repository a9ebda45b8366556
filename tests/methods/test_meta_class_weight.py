"""Meta class weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, WithFeatures, arrays, fit, sgd
from testkit.training import Recipe
from testkit.training import fit as fit_recipe
from torch.func import functional_call

from lightning_perturb.methods import ClassBalanced, MetaClassWeight


def make(method=MetaClassWeight, **options):
    torch.manual_seed(0)
    return method(WithFeatures(), CLASSES, **{"optimizer": sgd, **options}).double()


def test_training_is_that_of_the_published_loop():
    module, seen = make(conditional_lr=0.5, beta=0.9, warmup_epochs=1), []
    net = copy.deepcopy(module.net)

    class Peek(MetaClassWeight):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch["train"], batch["meta"]))
            return super().training_step(batch, batch_idx)

    module.__class__ = Peek
    trainer = fit(module, max_epochs=2)
    counts = torch.from_numpy(trainer.datamodule.class_counts).double()
    weights = 0.1 / (1 - 0.9**counts)
    weights *= CLASSES / weights.sum()
    optimizer, moved = sgd(net.parameters()), []
    for epoch, train, meta in seen:
        w = weights[train.y] if epoch else torch.ones(len(train.y)).double()
        if epoch:
            eps = torch.zeros(len(train.y), dtype=torch.float64, requires_grad=True)
            named = dict(net.named_parameters())
            cost = F.cross_entropy(functional_call(net, named, (train.x,))[0], train.y, reduction="none")
            slopes = torch.autograd.grad((cost * (w + eps)).sum(), list(named.values()), create_graph=True)
            ahead = {n: p - 0.2 * g for (n, p), g in zip(named.items(), slopes, strict=True)}
            outer = F.cross_entropy(functional_call(net, ahead, (meta.x,))[0], meta.y)
            (found,) = torch.autograd.grad(outer, eps)
            moved.append((0.5 * found).abs().max())
            w = w - 0.5 * found
        optimizer.zero_grad()
        (F.cross_entropy(net(train.x)[0], train.y, reduction="none") * w).mean().backward()
        optimizer.step()
    assert max(moved) > 0.01
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-7, atol=1e-9)


def test_without_steps_of_its_own_it_is_class_balanced():
    module, other = make(conditional_lr=0.0), make(ClassBalanced)
    fit(module, max_epochs=2)
    fit(other, arrays(meta_labels="drop"), max_epochs=2)
    for name, value in other.net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-6, atol=1e-8)


def test_between_meta_steps_there_is_no_conditional_weight():
    class Watched(MetaClassWeight):
        told = []

        def perturb_loss(self, loss, logits, batch):
            found = super().perturb_loss(loss, logits, batch)
            self.told.append(self._learned.detach().abs().sum().item())
            return found

    fit(make(Watched, conditional_lr=1.0, meta_every=3), max_epochs=1)
    # in a batch with a meta step the loss is taken twice, the second time with what was learned
    real = [value for place, value in enumerate(Watched.told) if place not in (0, 4, 8)]
    assert [value > 0 for value in real] == [batch % 3 == 0 for batch in range(7)]


def test_two_ranks_of_unequal_batches(ranks):
    # 52 samples in batches of 5 on each of two ranks: the last one is smaller
    recipe = Recipe(
        MetaClassWeight, {"conditional_lr": 1.0}, data={"samples": 50, "batch_size": 10},
        trainer={"max_epochs": 2, "precision": "64-true"},
    )  # fmt: skip
    expected = weights_of(recipe)
    two = recipe.but(data={"batch_size": 5}, trainer={"strategy": "ddp", "devices": 2})
    for found in ranks(weights_of, two):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def weights_of(recipe):
    return fit_recipe(recipe).lightning_module.net.classifier.weight.detach()


def test_bad_arguments():
    with pytest.raises(ValueError, match="conditional_lr=-1"):
        make(conditional_lr=-1.0)
