import math

import pytest
import torch
from torch.autograd import gradcheck

from lightning_perturb.functional import dlb_loss

U = torch.tensor([[1.0, 0.0, -1.0], [2.0, 2.0, 0.0]], dtype=torch.float64)
T = torch.tensor([[0.5, 0.7, 0.0], [2.0, 2.0, 0.0]], dtype=torch.float64)


def softmax(row, temperature):
    e = [math.exp(v / temperature) for v in row]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_by_hand(temperature):
    expected = []
    for u, t in zip(U.tolist(), T.tolist(), strict=True):
        q, p = softmax(t, temperature), softmax(u, temperature)
        expected.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(q, p, strict=True)))
    torch.testing.assert_close(dlb_loss(U, T, temperature), torch.tensor(expected, dtype=torch.float64))


def test_equal_logits_cost_nothing_and_the_teacher_is_constant():
    assert dlb_loss(U, T, 3.0)[1].item() == pytest.approx(0, abs=1e-15)
    teacher = T.clone().requires_grad_()
    assert not dlb_loss(U, teacher, 3.0).requires_grad
    assert gradcheck(lambda u: dlb_loss(u, teacher, 3.0), (U.clone().requires_grad_(),))


def test_bad_input():
    with pytest.raises(ValueError, match="temperature=0"):
        dlb_loss(U, T, 0)
    with pytest.raises(ValueError, match="teacher_logits have the shape"):
        dlb_loss(U, T[:1], 3.0)
