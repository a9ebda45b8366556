"""Focal loss, re-weighting, class-balanced losses: trained by hand."""

import math

import pytest
import torch
from testkit.script import CLASSES, assert_same, batches, cross_entropy, make, onehot, replay, softmax, train
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.functional import class_balanced_focal_loss
from lightning_perturb.methods import (
    LDAMDRW,
    LPL,
    ClassBalanced,
    ClassBalancedFocal,
    CrossEntropy,
    Focal,
    Mixup,
    ReWeighting,
)

COUNTS = [12, 3, 40, 5]


def scaled(weights):
    weights = torch.tensor(weights, dtype=torch.float64)
    return weights * CLASSES / weights.sum()


def effective(beta):
    return scaled([1 / sum(beta**k for k in range(n)) for n in COUNTS])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_by_hand(gamma):
    def loss(logits, batch, *_):
        p = (softmax(logits(batch[0])) * onehot(batch[1])).sum(1)
        return (-((1 - p) ** gamma) * p.log()).mean()

    assert_same(train(make(Focal, gamma=gamma)), replay(loss))


def test_focal_without_focus_is_cross_entropy():
    torch.testing.assert_close(train(make(Focal, gamma=0.0)), train(make(CrossEntropy)))


@pytest.mark.parametrize(
    ("method", "options", "weights"),
    [
        (ReWeighting, {}, scaled([1 / n for n in COUNTS])),
        (ClassBalanced, {"beta": 0.9}, effective(0.9)),
        (ClassBalanced, {"beta": 0.999}, effective(0.999)),
    ],
)
def test_weighted_cross_entropy_by_hand(method, options, weights):
    def loss(logits, batch, *_):
        # the plain mean: dividing by the weights of the batch is another loss
        return (weights[batch[1]] * cross_entropy(logits(batch[0]), batch[1])).sum() / len(batch[1])

    assert_same(train(make(method, class_counts=COUNTS, **options)), replay(loss), tolerance=1e-6)


def test_weights_that_are_deferred():
    weights = scaled([1 / n for n in COUNTS])

    def loss(logits, batch, epoch, _):
        losses = cross_entropy(logits(batch[0]), batch[1])
        return (losses * weights[batch[1]] if epoch >= 2 else losses).mean()

    module = make(ReWeighting, class_counts=COUNTS, from_epoch=2)
    assert_same(train(module, epochs=3), replay(loss, epochs=3), tolerance=1e-6)
    assert module.phases() == [(0, "warmup"), (0, "main"), (2, "deferred")]
    assert make(ReWeighting, from_epoch=1, warmup_epochs=3).phases()[-1] == (3, "deferred")


def test_class_balanced_focal_by_hand():
    weights = effective(0.99)

    def loss(logits, batch, *_):
        u, y = logits(batch[0]), onehot(batch[1])
        p = torch.where(y > 0, torch.sigmoid(u), torch.sigmoid(-u))
        return (weights[batch[1]] * (-((1 - p) ** 1.5) * p.log()).sum(1)).mean()

    module = make(ClassBalancedFocal, class_counts=COUNTS, beta=0.99, gamma=1.5)
    assert_same(train(module), replay(loss), tolerance=1e-6)
    x, y, _ = batches()[0]
    entries = module.sample_loss(module.net(x), y, Batch(x, y))
    torch.testing.assert_close(entries * weights[y], class_balanced_focal_loss(module.net(x), y, weights, 1.5))


def test_class_balanced_focal_of_softmax_by_hand():
    weights = effective(0.99)

    def loss(logits, batch, *_):
        p = (softmax(logits(batch[0])) * onehot(batch[1])).sum(1)
        return (weights[batch[1]] * -((1 - p) ** 0.5) * p.log()).mean()

    module = make(ClassBalancedFocal, class_counts=COUNTS, beta=0.99, gamma=0.5, form="softmax")
    assert_same(train(module), replay(loss), tolerance=1e-6)


def test_the_first_bias_makes_all_classes_unlikely():
    net = nn.Linear(6, CLASSES)
    ClassBalancedFocal(net, CLASSES, init_bias=True)
    assert net.bias.tolist() == pytest.approx([-math.log(3)] * CLASSES)
    assert torch.sigmoid(net.bias).tolist() == pytest.approx([1 / 4] * CLASSES)
    with pytest.raises(ValueError, match="init_bias=True finds no bias"):
        ClassBalancedFocal(nn.Linear(6, CLASSES, bias=False), CLASSES, init_bias=True)


def test_weights_and_perturbed_logits_cooperate():
    class WeightedLPL(ClassBalanced, LPL):
        """Both."""

    weights = effective(0.99)
    module = make(WeightedLPL, class_counts=COUNTS, beta=0.99)
    module.class_counts.copy_(torch.tensor(COUNTS))
    module.use_counts(module.known_counts().double())
    x, y, _ = batches()[0]
    u = module.net(x)
    expected = weights[y] * cross_entropy(make(LPL).perturb_logits(u, {}, Batch(x, y)), y)
    torch.testing.assert_close(module.loss({"logits": u}, Batch(x, y)), expected.mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (Focal, {"gamma": -1.0}, "gamma=-1.0"),
        (ReWeighting, {"from_epoch": -1}, "from_epoch=-1"),
        (ClassBalanced, {"beta": 1.0}, "beta=1.0"),
        (ClassBalancedFocal, {"form": "sigmoids"}, "form='sigmoids'"),
    ],
)
def test_bad_arguments(method, options, message):
    with pytest.raises(ValueError, match=message):
        make(method, **options)


def test_weights_over_those_of_the_batch_are_pytorchs_weighted_cross_entropy():
    weights = effective(0.99)

    def loss(logits, batch, *_):
        return torch.nn.functional.cross_entropy(logits(batch[0]), batch[1], weight=weights)

    module = make(ClassBalanced, class_counts=COUNTS, beta=0.99, normalise="batch")
    assert_same(train(module), replay(loss), tolerance=1e-6)
    assert LDAMDRW(nn.Linear(6, CLASSES), CLASSES).normalise == "batch"


def test_soft_labels_have_the_mean_weight_of_their_classes():
    module = make(ReWeighting, class_counts=COUNTS)
    module.class_counts.copy_(torch.tensor(COUNTS))
    module.use_counts(module.known_counts().double())
    x, y, _ = batches()[0]
    hot = torch.nn.functional.one_hot(y, CLASSES).to(x.dtype)
    losses = torch.rand(len(y), dtype=x.dtype)
    torch.testing.assert_close(
        module.perturb_loss(losses, None, Batch(x, hot)), module.perturb_loss(losses, None, Batch(x, y))
    )


def test_weights_go_with_mixup():
    class WeightedMixup(ReWeighting, Mixup):
        """Both."""

    assert torch.isfinite(train(make(WeightedMixup, class_counts=COUNTS))).all()
