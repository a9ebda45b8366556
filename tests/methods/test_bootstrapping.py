import pytest
import torch
from testkit.script import CLASSES, assert_same, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.methods import CrossEntropy, HardBootstrapping, SoftBootstrapping


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("beta", [0.95, 0.4])
def test_soft(beta, detach):
    def loss(logits, batch, *_):
        u = logits(batch[0])
        p = softmax(u.detach() if detach else u)
        return cross_entropy(u, beta * onehot(batch[1]) + (1 - beta) * p).mean()

    assert_same(train(make(SoftBootstrapping, beta=beta, detach_target=detach)), replay(loss))


def test_soft_differentiates_its_label_unless_asked():
    assert not torch.allclose(
        train(make(SoftBootstrapping, beta=0.4)), train(make(SoftBootstrapping, beta=0.4, detach_target=True))
    )


@pytest.mark.parametrize("beta", [0.8, 0.3])
def test_hard(beta):
    def loss(logits, batch, *_):
        u = logits(batch[0])
        predicted = torch.eye(CLASSES, dtype=torch.float64)[u.argmax(1)]
        return cross_entropy(u, beta * onehot(batch[1]) + (1 - beta) * predicted).mean()

    assert_same(train(make(HardBootstrapping, beta=beta)), replay(loss))


@pytest.mark.parametrize("method", [SoftBootstrapping, HardBootstrapping])
def test_full_weight_on_the_given_label_is_cross_entropy(method):
    assert_same(train(make(method, beta=1.0)), train(make(CrossEntropy)))


@pytest.mark.parametrize("method", [SoftBootstrapping, HardBootstrapping])
@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_weights_outside_a_share(method, beta):
    with pytest.raises(ValueError, match=r"beta="):
        make(method, beta=beta)
