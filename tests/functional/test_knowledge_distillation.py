import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import balanced_teacher_logits, cross_entropy, knowledge_distillation_loss


def draw():
    generator = torch.Generator().manual_seed(0)
    u, t = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    return u, torch.randint(4, (6,), generator=generator), t


def test_by_hand():
    u, y, t = draw()
    T = 3.0
    q, p = (t / T).softmax(1).numpy(), (u / T).softmax(1).numpy()
    # [tax 15]: l(p', q) - l(p', p') is the divergence where the second is the entropy of q; both at temperature T
    divergence = (q * np.log(q / p)).sum(1)
    expected = cross_entropy(u, y).numpy() + 0.7 * T**2 * divergence
    np.testing.assert_allclose(knowledge_distillation_loss(u, y, t, 0.7, T).numpy(), expected)


def test_own_prediction_and_no_weight_leave_cross_entropy():
    u, y, t = draw()
    torch.testing.assert_close(knowledge_distillation_loss(u, y, u), cross_entropy(u, y))
    torch.testing.assert_close(knowledge_distillation_loss(u, y, t, 0.0), cross_entropy(u, y))


def test_gradient_only_in_the_student():
    u, y, t = draw()
    t.requires_grad_()
    assert gradcheck(lambda u: knowledge_distillation_loss(u, y, t.detach()), (u.requires_grad_(),))
    knowledge_distillation_loss(u, y, t).sum().backward()
    assert t.grad is None


def test_bad_input():
    u, y, t = draw()
    with pytest.raises(ValueError, match="lam=-1"):
        knowledge_distillation_loss(u, y, t, -1.0)
    with pytest.raises(ValueError, match="temperature=0"):
        knowledge_distillation_loss(u, y, t, 1.0, 0.0)
    with pytest.raises(ValueError, match="teacher_logits"):
        knowledge_distillation_loss(u, y, t[:2])


def test_a_balanced_teacher_weights_its_prediction_at_the_temperature():
    _, _, t = draw()
    w = torch.tensor([0.1, 0.5, 1.0, 2.4], dtype=torch.float64)
    weighted = (t / 3).softmax(1) * w
    found = balanced_teacher_logits(t, w, 3.0)
    torch.testing.assert_close((found / 3).softmax(1), weighted / weighted.sum(1, keepdim=True))
    torch.testing.assert_close(balanced_teacher_logits(t, torch.ones(4)), t)
    with pytest.raises(ValueError, match=r"weights have the shape \(3,\) where \[4\]"):
        balanced_teacher_logits(t, w[:3])
