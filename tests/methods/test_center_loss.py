"""Center loss and DisturbLabel by hand."""

import pytest
import torch
from testkit.script import CLASSES, assert_same, batches, cross_entropy, make, replay, train
from testkit.training import Recipe, fit, trainer_of
from torch import nn
from torch.utils.data import DataLoader

from lightning_perturb.core import random as keyed_random
from lightning_perturb.methods import CenterLoss, CrossEntropy, DisturbLabel


class Centers:
    """The centres of classes, one class at a time; the linear network's features are its inputs."""

    def __init__(self, rate):
        self.rate, self.values = rate, torch.zeros(CLASSES, 6, dtype=torch.float64)

    def after(self, u, batch, epoch, number):
        x, y, _ = batch
        for c in y.unique().tolist():
            own = x[y == c]
            self.values[c] -= self.rate * (self.values[c] - own).sum(0) / (1 + len(own))


def test_centers_by_hand():
    centers = Centers(0.3)
    module = make(CenterLoss, center_rate=0.3, weight=0.1)
    losses, expected = [], []
    step = module.training_step

    def watched(batch, batch_idx):
        losses.append(step(batch, batch_idx))
        return losses[-1]

    module.training_step = watched

    def loss(logits, batch, *_):
        distance = (batch[0] - centers.values[batch[1]]).square().sum(1) / 2
        total = (cross_entropy(logits(batch[0]), batch[1]) + 0.1 * distance).mean()
        expected.append(float(total))
        return total

    assert_same(train(module), replay(loss, after=centers.after))
    torch.testing.assert_close(module.centers, centers.values)
    assert [float(step["loss"]) for step in losses] == pytest.approx(expected)


def test_features_are_drawn_to_their_centers():
    torch.manual_seed(0)
    x, y = torch.randn(64, 6), torch.arange(64) % CLASSES
    spread = {}
    for weight in (0.0, 0.5):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, CLASSES))
        module = CenterLoss(net, CLASSES, weight=weight, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))
        trainer_of(max_epochs=20).fit(module, DataLoader([(x, y)], batch_size=None))
        features = net[0](x).detach()
        spread[weight] = sum(float(features[y == c].var(0).sum()) for c in range(CLASSES))
    assert spread[0.5] < 0.7 * spread[0.0]


def test_without_weight_it_is_cross_entropy():
    assert torch.equal(train(make(CenterLoss, weight=0.0)), train(make(CrossEntropy)))


def test_labels_are_disturbed_by_hand():
    found = []

    def loss(logits, batch, epoch, _):
        x, y, index = batch
        uniform = keyed_random.uniform(0, "disturb_label", epoch, index)
        new = torch.tensor([int(u / 0.5 * CLASSES) if u < 0.5 else int(c) for u, c in zip(uniform, y, strict=True)])
        found.append((new != y).float().mean())
        return cross_entropy(logits(x), new).mean()

    assert_same(train(make(DisturbLabel, alpha=0.5, seed=0)), replay(loss))
    # half are drawn, three quarters of them anew, each epoch others
    assert 0.1 < float(torch.stack(found).mean()) < 0.7
    assert found[:3] != found[3:]


def test_undisturbed_labels_are_cross_entropy():
    assert torch.equal(train(make(DisturbLabel, alpha=0.0)), train(make(CrossEntropy)))


def test_bad_arguments():
    for method, options, message in (
        (CenterLoss, {"weight": -1.0}, "weight=-1.0"),
        (CenterLoss, {"center_rate": 1.5}, "center_rate=1.5"),
        (DisturbLabel, {"alpha": 1.2}, "alpha=1.2"),
    ):
        with pytest.raises(ValueError, match=message):
            make(method, **options)
    assert len(batches()) == 3
    assert fit(Recipe(CenterLoss, trainer={"max_epochs": 1})).lightning_module.centers.abs().sum() > 0
