import pytest
import torch
from testkit.script import assert_same, cross_entropy, make, replay, softmax, train

from lightning_perturb.methods import CrossEntropy, PolyLoss


def test_a_training_by_hand():
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        wrong = 1 - softmax(u)[torch.arange(len(y)), y]
        return (cross_entropy(u, y) + 1.5 * wrong - 0.3 * wrong**2).mean()

    assert_same(train(make(PolyLoss, epsilons=(1.5, -0.3))), replay(loss))


def test_without_coefficients_it_is_cross_entropy():
    assert_same(train(make(PolyLoss, epsilons=())), train(make(CrossEntropy)))


@pytest.mark.parametrize("epsilons", [(-1.0,), (2.0, -0.5), (float("nan"),), (float("inf"),)])
def test_options(epsilons):
    with pytest.raises(ValueError, match="Keep its epsilon finite and above"):
        make(PolyLoss, epsilons=epsilons)
