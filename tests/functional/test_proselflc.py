import math

import pytest
import torch

from lightning_perturb.functional import proselflc_target, trust

U = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [1e4, 0.0, -1e4]], dtype=torch.float64)
Y = torch.tensor([1, 2, 1])


@pytest.mark.parametrize("t", [1, 30, 50, 100])
def test_trust(t):
    assert trust(t, 100, 6, 0.3) == pytest.approx(1 / (1 + math.exp(-6 * (t / 100 - 0.3))))


def test_trust_middle_limits_and_bad_input():
    assert trust(50, 100, 14, 0.5) == 0.5
    assert trust(0, 100, 1e6, 0.5) == 0.0
    assert trust(100, 100, 1e6, 0.5) == 1.0
    with pytest.raises(ValueError, match="total_steps=0"):
        trust(1, 0, 6, 0.3)


def test_target_by_hand():
    p = [math.exp(v) / sum(math.exp(w) for w in (2.0, 0.5, -1.0)) for v in (2.0, 0.5, -1.0)]
    weight = 0.8 * (1 + sum(v * math.log(v) for v in p) / math.log(3))
    target = proselflc_target(U, Y, 0.8)
    assert target[0].tolist() == pytest.approx([weight * p[0], 1 - weight + weight * p[1], weight * p[2]])
    # a uniform prediction is not trusted at all, a certain one as far as time allows
    assert target[1].tolist() == pytest.approx([0, 0, 1])
    assert target[2].tolist() == pytest.approx([0.8, 0.2, 0])
    torch.testing.assert_close(proselflc_target(U, Y, torch.tensor(0.8, dtype=U.dtype)), target)
    torch.testing.assert_close(proselflc_target(U, torch.eye(3, dtype=U.dtype)[Y], 0.8), target)


@pytest.mark.parametrize("classes", [2, 3, 7, 10, 100, 1000])
def test_uniform_predictions_never_get_a_negative_weight(classes):
    target = proselflc_target(torch.full((4, classes), 0.3), torch.zeros(4, dtype=torch.long), 1.0)
    assert (target >= 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(4))


def test_gradient_flows_through_the_prediction_but_not_the_weight():
    u = U[:1].clone().requires_grad_()
    p = u.softmax(1)
    weight = 0.8 * (1 + (p * p.log()).sum() / math.log(3)).item()
    (gradient,) = torch.autograd.grad(proselflc_target(u, Y[:1], 0.8)[0, 0], u)
    (expected,) = torch.autograd.grad(weight * p[0, 0], u)
    torch.testing.assert_close(gradient, expected)
    assert not proselflc_target(u, Y[:1], 0.8, detach=True).requires_grad


def test_bad_trust():
    with pytest.raises(ValueError, match=r"global_trust=1\.5"):
        proselflc_target(U, Y, 1.5)
