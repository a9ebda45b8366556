import pytest
import torch

from lightning_perturb.functional import cross_entropy, hard_bootstrapping_target, soft_bootstrapping_target

U = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 0.2], [1.0, 1.5, 4.0]], dtype=torch.float64)
Y = torch.tensor([1, 1, 0])


def test_soft_target_and_its_loss():
    p = U.exp() / U.exp().sum(1, keepdim=True)
    expected = 0.95 * torch.eye(3, dtype=U.dtype)[Y] + 0.05 * p
    torch.testing.assert_close(soft_bootstrapping_target(U, Y), expected)
    # the loss splits into the two terms of [tax 38]
    loss = cross_entropy(U, soft_bootstrapping_target(U, Y, 0.7))
    entropy = -(p * p.log()).sum(1)
    torch.testing.assert_close(loss, 0.7 * cross_entropy(U, Y) + 0.3 * entropy)


def test_soft_gradient_flows_through_the_target_unless_detached():
    u = U.clone().requires_grad_()
    p = u.softmax(1)
    given = -0.6 * p.log()[torch.arange(3), Y]
    for detach, other in ((False, p), (True, p.detach())):
        (expected,) = torch.autograd.grad((given - 0.4 * (other * p.log()).sum(1)).sum(), u, retain_graph=True)
        loss = cross_entropy(u, soft_bootstrapping_target(u, Y, 0.6, detach=detach))
        (gradient,) = torch.autograd.grad(loss.sum(), u)
        torch.testing.assert_close(gradient, expected)
    assert not soft_bootstrapping_target(u, Y, detach=True).requires_grad


def test_hard_target():
    expected = torch.tensor([[0.2, 0.8, 0.0], [0.0, 1.0, 0.0], [0.8, 0.0, 0.2]], dtype=U.dtype)
    torch.testing.assert_close(hard_bootstrapping_target(U, Y), expected)
    assert not hard_bootstrapping_target(U.clone().requires_grad_(), Y).requires_grad


@pytest.mark.parametrize("make", [soft_bootstrapping_target, hard_bootstrapping_target])
def test_soft_labels_limits_and_bad_input(make):
    one_hot = torch.eye(3, dtype=U.dtype)[Y]
    torch.testing.assert_close(make(U, one_hot, 0.6), make(U, Y, 0.6))
    torch.testing.assert_close(make(U, Y, 1.0), one_hot)
    assert make(U.bfloat16(), Y).dtype == torch.float32
    with pytest.raises(ValueError, match=r"beta=1\.2"):
        make(U, Y, 1.2)
