"""LADE."""

import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, replay, train

from lightning_perturb.methods import LADE, LogitAdjustment

COUNTS = [40, 12, 5, 2]


def test_a_training_by_hand():
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)

    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        term = 0.0
        for c in range(CLASSES):
            own = u[y == c, c]
            mean = own.mean() if len(own) else 0.0
            spread = torch.log((torch.exp(u[:, c]) / (CLASSES * prior[c])).mean())
            term = term + prior[c] * (spread - mean + 0.4 * spread**2)
        return cross_entropy(u + torch.log(prior), y).mean() + 0.3 * term

    assert_same(train(make(LADE, alpha=0.3, lam=0.4, class_counts=COUNTS)), replay(loss))


def test_without_weight_it_is_logit_adjustment():
    options = {"class_counts": COUNTS, "tau": 0.7}
    assert_same(train(make(LADE, alpha=0.0, **options)), train(make(LogitAdjustment, **options)))


@pytest.mark.parametrize(("options", "message"), [({"alpha": -1.0}, "alpha=-1"), ({"lam": -0.1}, "lam=-0.1")])
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make(LADE, **options)
