import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.methods import AdversarialLabelSmoothing, CrossEntropy


def test_a_training_by_hand():
    def loss(logits, batch, *_):
        u = logits(batch[0])
        worst = torch.eye(CLASSES).double()[softmax(u).argmin(1)]
        return cross_entropy(u, 0.75 * onehot(batch[1]) + 0.25 * worst).mean()

    assert_same(train(make(AdversarialLabelSmoothing, lam=0.25)), replay(loss))


def test_without_a_share_it_is_cross_entropy():
    assert_same(train(make(AdversarialLabelSmoothing, lam=0.0)), train(make(CrossEntropy)))


def test_options():
    with pytest.raises(ValueError, match=r"lam=1\.2"):
        make(AdversarialLabelSmoothing, lam=1.2)
