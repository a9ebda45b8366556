import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import (
    binary_cross_entropy,
    binary_cross_entropy_entries,
    cross_entropy,
    logit_gradient,
    margin,
    one_hot,
    probability_margin,
)

Y = torch.tensor([0, 2, 1, 3])


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


def by_hand(logits, soft):
    """Cross-entropy by Python floats."""
    out = []
    for u, t in zip(logits.tolist(), soft.tolist(), strict=True):
        top = max(u)
        z = math.log(sum(math.exp(v - top) for v in u)) + top
        out.append(sum(p * (z - v) for p, v in zip(t, u, strict=True)))
    return torch.tensor(out, dtype=torch.float64)


def test_equation_51():
    u = torch.tensor([[3.0, 0.8, 0.2]])
    y = torch.tensor([1])
    assert cross_entropy(u, y).item() == pytest.approx(2.3584, abs=5e-5)
    assert cross_entropy(u + torch.tensor([-1.0, 2.0, 0.0]), y).item() == pytest.approx(0.4211, abs=5e-5)


def test_cross_entropy_of_ids_and_soft_labels():
    u = draw(4, 5)
    soft = draw(4, 5, seed=1).softmax(1)
    torch.testing.assert_close(cross_entropy(u, Y), by_hand(u, torch.eye(5)[Y]))
    torch.testing.assert_close(cross_entropy(u, soft), by_hand(u, soft))
    torch.testing.assert_close(cross_entropy(u, one_hot(Y, 5)), cross_entropy(u, Y))


def test_cross_entropy_gradients_reach_logits_and_soft_labels():
    u = draw(3, 4).requires_grad_()
    soft = draw(3, 4, seed=1).softmax(1).detach().requires_grad_()
    assert gradcheck(cross_entropy, (u, soft))
    assert gradgradcheck(cross_entropy, (u, soft))
    assert gradcheck(lambda v: cross_entropy(v, Y[:3]), (u,))


def test_binary_cross_entropy():
    u, t = draw(4, 3), (draw(4, 3, seed=1) > 0)
    expected = [
        sum(math.log1p(math.exp(v)) - w * v for v, w in zip(a, b, strict=True)) / 3
        for a, b in zip(u.tolist(), t.tolist(), strict=True)
    ]
    torch.testing.assert_close(binary_cross_entropy(u, t), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(binary_cross_entropy_entries(u, t).mean(1), binary_cross_entropy(u, t))
    torch.testing.assert_close(binary_cross_entropy(u, t.long()), binary_cross_entropy(u, t.double()))
    assert gradcheck(lambda v: binary_cross_entropy(v, t), (u.requires_grad_(),))
    extreme = binary_cross_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([[1, 1]]))
    assert extreme.item() == pytest.approx(5e3)


def test_logit_gradient_is_autograds_and_constant():
    u = draw(4, 5).requires_grad_()
    for target in (Y, draw(4, 5, seed=1).softmax(1)):
        (expected,) = torch.autograd.grad(cross_entropy(u, target).sum(), u)
        torch.testing.assert_close(logit_gradient(u, target), expected)
        assert not logit_gradient(u, target).requires_grad


def test_one_hot():
    rows = one_hot(torch.tensor([1, 0]), 3, torch.float64)
    assert rows.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert rows.dtype == torch.float64


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6).flatmap(lambda c: st.lists(st.lists(st.integers(-3, 3), min_size=c, max_size=c), min_size=1)))
def test_margin_is_the_lead_over_the_best_rival_with_ties(rows):
    u = torch.tensor(rows, dtype=torch.float64)
    for y in range(u.shape[1]):
        expected = [row[y] - max(row[:y] + row[y + 1 :]) for row in rows]
        assert margin(u, torch.full((len(rows),), y)).tolist() == expected


def test_margin_gradient_and_probability_margin():
    u = draw(4, 5).requires_grad_()
    assert gradcheck(lambda v: margin(v, Y), (u,))
    assert gradcheck(lambda v: probability_margin(v, Y), (u,))
    p = [[math.exp(v) for v in row] for row in u.tolist()]
    expected = [(r[y] - max(r[:y] + r[y + 1 :])) / sum(r) for r, y in zip(p, Y.tolist(), strict=True)]
    torch.testing.assert_close(probability_margin(u.detach(), Y), torch.tensor(expected, dtype=torch.float64))


def test_margin_of_half_precision_is_not_rounded_again():
    u = torch.tensor([[256.0, 1.0078125]], dtype=torch.bfloat16)
    assert margin(u, torch.tensor([0])).item() == 256.0 - 1.0078125


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(4), Y, "logits have the shape"),
        (torch.zeros(4, 1), Y, "C of at least 2"),
        (torch.zeros(4, 5), Y[:3], r"target has the shape \(3,\)"),
        (torch.zeros(4, 5), Y.int(), r"\.long\(\)"),
        (torch.zeros(4, 5), Y.float(), r"\.long\(\)"),
        (torch.zeros(4, 5), torch.zeros(4, 6), "soft labels of shape"),
        (torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.long), "multi-label"),
    ],
)
def test_bad_input(logits, target, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(logits, target)


def test_bad_input_of_the_others():
    with pytest.raises(ValueError, match="must both be"):
        binary_cross_entropy(torch.zeros(4, 5), Y)
    with pytest.raises(ValueError, match="class ids"):
        margin(torch.zeros(4, 5), torch.zeros(4, 5))
    with pytest.raises(ValueError, match="class ids"):
        one_hot(torch.zeros(4, 5), 5)
