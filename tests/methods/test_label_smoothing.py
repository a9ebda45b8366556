import pytest
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, train

from lightning_perturb.methods import CrossEntropy, LabelSmoothing


@pytest.mark.parametrize("eps", [0.1, 0.6])
def test_a_training_by_hand(eps):
    def loss(logits, batch, *_):
        return cross_entropy(logits(batch[0]), (1 - eps) * onehot(batch[1]) + eps / CLASSES).mean()

    # soft labels are single precision
    assert_same(train(make(LabelSmoothing, eps=eps)), replay(loss), tolerance=1e-6)


def test_no_smoothing_is_cross_entropy():
    assert_same(train(make(LabelSmoothing, eps=0.0)), train(make(CrossEntropy)))


def test_rates():
    with pytest.raises(ValueError, match=r"eps=1.5 is not a share"):
        make(LabelSmoothing, eps=1.5)
