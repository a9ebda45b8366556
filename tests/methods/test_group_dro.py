"""Group DRO and UW by hand."""

import pytest
import torch
from testkit.script import CLASSES, assert_same, batches, cross_entropy, domain_of, make, replay, train
from testkit.training import Recipe, fit

from lightning_perturb.methods import UW, CrossEntropy, GroupDRO

COUNTS = [[2, 9, 4], [1, 8, 7], [0, 25, 3], [6, 6, 6]]


class ByHand:
    """q, one group at a time."""

    def __init__(self, step_size, adjustment):
        self.step_size, self.adjustment = step_size, adjustment
        self.q = {(c, d): 1.0 for c in range(CLASSES) for d in range(3) if COUNTS[c][d]}

    def loss(self, logits, batch, *_):
        x, y, index = batch
        losses, domain = cross_entropy(logits(x), y), domain_of(index)
        risks = {}
        for c, d in {(int(c), int(d)) for c, d in zip(y, domain, strict=True)}:
            risks[c, d] = losses[(y == c) & (domain == d)].mean()
            raised = float(risks[c, d].detach()) + self.adjustment / COUNTS[c][d] ** 0.5
            self.q[c, d] *= float(torch.tensor(self.step_size * raised).exp())
        total = sum(self.q.values())
        self.q = {group: weight / total for group, weight in self.q.items()}
        return sum(self.q[group] * risk for group, risk in risks.items())


@pytest.mark.parametrize("adjustment", [0.0, 3.0])
def test_group_dro_by_hand(adjustment):
    # a group that is declared empty must not come
    seen = {(int(c), int(d)) for _, y, i in batches() for c, d in zip(y, domain_of(i), strict=True)}
    assert (2, 0) not in seen
    hand = ByHand(0.7, adjustment)
    module = make(GroupDRO, step_size=0.7, adjustment=adjustment, group_counts=COUNTS)
    assert_same(train(module), replay(hand.loss), tolerance=1e-6)
    q = module.group_log_weight.exp().reshape(CLASSES, 3)
    for (c, d), weight in hand.q.items():
        assert float(q[c, d]) == pytest.approx(weight, rel=1e-5)
    assert float(q[2, 0]) == 0
    assert float(q.sum()) == pytest.approx(1)


def test_the_worst_group_gains_weight():
    recipe = Recipe(GroupDRO, {"step_size": 0.5}, data={"noise": 0.0, "samples": 160})
    module = fit(recipe).lightning_module
    q = module.group_log_weight.exp()
    assert float(q.max()) > 2 / int((module.group_counts > 0).sum())


def test_uw_by_hand():
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    weights = torch.where(counts > 0, counts.sum() / (11 * counts), 0.0)

    def loss(logits, batch, *_):
        x, y, index = batch
        return (cross_entropy(logits(x), y) * weights[y, domain_of(index)]).mean()

    assert_same(train(make(UW, group_counts=COUNTS)), replay(loss), tolerance=1e-6)


def test_groups_of_the_same_size_are_cross_entropy():
    plain = train(make(CrossEntropy))
    torch.testing.assert_close(train(make(UW, group_counts=[[5] * 3] * CLASSES)), plain)
