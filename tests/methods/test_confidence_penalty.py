import math

import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, replay, softmax, train

from lightning_perturb.methods import ConfidencePenalty, CrossEntropy


@pytest.mark.parametrize("tau", [None, 1.1])
def test_a_training_by_hand(tau):
    def loss(logits, batch, *_):
        u = logits(batch[0])
        p = softmax(u)
        entropy = -(p * torch.log(p)).sum(1)
        return (cross_entropy(u, batch[1]) + 0.4 * ((tau or math.log(CLASSES)) - entropy).clamp(min=0)).mean()

    assert_same(train(make(ConfidencePenalty, beta=0.4, tau=tau)), replay(loss))


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"tau": 0.0}])
def test_without_a_penalty_it_is_cross_entropy(options):
    assert_same(train(make(ConfidencePenalty, **options)), train(make(CrossEntropy)))


@pytest.mark.parametrize(("options", "message"), [({"beta": -1.0}, "beta="), ({"tau": -1.0}, "tau=")])
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(ConfidencePenalty, **options)
