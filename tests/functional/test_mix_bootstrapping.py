import pytest
import torch

from lightning_perturb.functional import (
    mix_bootstrapping_target,
    online_label_smoothing_target,
    soft_bootstrapping_target,
)

GENERATOR = torch.Generator().manual_seed(0)
U = torch.randn(6, 4, dtype=torch.float64, generator=GENERATOR)
S = torch.rand(4, 4, dtype=torch.float64, generator=GENERATOR).softmax(1)
Y = torch.tensor([0, 1, 2, 3, 3, 1])


def test_equation_67():
    e, p = torch.eye(4, dtype=U.dtype)[Y], U.exp() / U.exp().sum(1, keepdim=True)
    expected = e + 0.3 * (0.6 * S[Y] + 0.4 * p - e)
    torch.testing.assert_close(mix_bootstrapping_target(U, Y, S, 0.3, 0.6), expected)


def test_its_two_ends():
    torch.testing.assert_close(mix_bootstrapping_target(U, Y, S, 0.3, 0.0), soft_bootstrapping_target(U, Y, 0.7))
    torch.testing.assert_close(mix_bootstrapping_target(U, Y, S, 0.3, 1.0), online_label_smoothing_target(Y, S, 0.3))


def test_gradient_flows_unless_detached():
    u = U.clone().requires_grad_()
    direction = torch.randn(U.shape, dtype=U.dtype, generator=torch.Generator().manual_seed(1))
    target = (mix_bootstrapping_target(u, Y, S, 0.3, 0.6) * direction).sum()
    (gradient,) = torch.autograd.grad(target, u)
    (expected,) = torch.autograd.grad(0.3 * 0.4 * (u.softmax(1) * direction).sum(), u)
    torch.testing.assert_close(gradient, expected)
    assert not mix_bootstrapping_target(u, Y, S, 0.3, 0.6, detach=True).requires_grad


def test_float32_averages_beside_half_precision_logits():
    assert mix_bootstrapping_target(U.bfloat16(), Y, S.float(), 0.3, 0.6).dtype == torch.float32


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_bad_input(name):
    with pytest.raises(ValueError, match=f"{name}=-0.1"):
        mix_bootstrapping_target(U, Y, S, **{"alpha": 0.5, "beta": 0.5, name: -0.1})
