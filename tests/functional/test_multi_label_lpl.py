import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_perturb.functional import binary_cross_entropy, multi_label_lpl

SIGN = torch.tensor([-1.0, -1, 1, 1])
BOUNDS = torch.tensor([0.3, 0.1, 0.2, 0.5], dtype=torch.float64)


def draw(seed=0, batch=9):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, 4, dtype=torch.float64, generator=generator) * 2
    return u, torch.randint(2, (batch, 4), generator=generator)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_attains_the_maxima_and_minima_of_equation_34(seed):
    u, y = draw(seed)
    lower = -multi_label_lpl(u, y, SIGN, BOUNDS).numpy()
    u, y = u.numpy(), y.numpy()
    for c in range(4):
        grid = np.linspace(-BOUNDS[c].item(), BOUNDS[c].item(), 101)
        s = SIGN[c].item()
        positive = np.log1p(np.exp(-u[:, c, None] + grid))
        negative = np.log1p(np.exp(u[:, c, None] - grid))
        mine_positive = np.log1p(np.exp(-u[:, c] + lower[c]))
        mine_negative = np.log1p(np.exp(u[:, c] - lower[c]))
        # S max [l S] is the maximum for the tail and the minimum for the head; S min [l S] the reverse
        np.testing.assert_allclose(mine_positive, s * (s * positive).max(1))
        np.testing.assert_allclose(mine_negative, s * (s * negative).min(1))


def test_directions():
    u, y = draw()
    shift = multi_label_lpl(u, y, SIGN, BOUNDS)
    assert shift.tolist() == [0.3, 0.1, -0.2, -0.5]
    tail_positive = torch.tensor([[0, 0, 1, 1]])
    flat = torch.zeros(1, 4, dtype=torch.float64)
    assert binary_cross_entropy((flat + shift)[:, 2:], tail_positive[:, 2:]) > binary_cross_entropy(
        flat[:, 2:], tail_positive[:, 2:]
    )
    assert torch.equal(multi_label_lpl(u, y, SIGN, BOUNDS * 0), torch.zeros(4, dtype=torch.float64))


def test_pgd_reaches_the_closed_form_and_stops_there():
    u, y = draw()
    closed = multi_label_lpl(u, y, SIGN, BOUNDS)
    torch.testing.assert_close(multi_label_lpl(u, y, SIGN, BOUNDS, "pgd", alpha=0.1, steps=200), closed)
    one = multi_label_lpl(u, y, SIGN, BOUNDS, "pgd", alpha=0.01, steps=1)
    # the mean over the samples of the corrected eqs. 39 and 40 at 0, by central differences of the two losses
    t = 1e-6
    slope = torch.zeros(4, dtype=torch.float64)
    for c in range(4):
        positive = (torch.log1p(torch.exp(-u[:, c] + t)) - torch.log1p(torch.exp(-u[:, c] - t))) / (2 * t)
        negative = (torch.log1p(torch.exp(u[:, c] - t)) - torch.log1p(torch.exp(u[:, c] + t))) / (2 * t)
        slope[c] = torch.where(y[:, c] == 1, positive, -negative).mean()
    torch.testing.assert_close(one, -0.01 * SIGN * slope, rtol=1e-6, atol=1e-9)
    assert not multi_label_lpl(u, y, SIGN, BOUNDS, "pgd", steps=0).any()


def test_constant_and_half_precision():
    u, y = draw()
    for solver in ("closed_form", "pgd"):
        shift = multi_label_lpl(u.bfloat16().requires_grad_(), y, SIGN, BOUNDS, solver)
        assert not shift.requires_grad
        assert shift.dtype == torch.float32
        assert multi_label_lpl(u * 1e4, y, SIGN, BOUNDS, solver).isfinite().all()
        assert multi_label_lpl(u[:0], y[:0], SIGN, BOUNDS, solver).isfinite().all()


def test_bad_input():
    u, y = draw()
    for match, call in (
        ("solver='adam'", lambda: multi_label_lpl(u, y, SIGN, BOUNDS, "adam")),
        ("alpha=0", lambda: multi_label_lpl(u, y, SIGN, BOUNDS, alpha=0.0)),
        ("steps=-1", lambda: multi_label_lpl(u, y, SIGN, BOUNDS, steps=-1)),
        ("must both be", lambda: multi_label_lpl(u, y[:, 0], SIGN, BOUNDS)),
        ("sign has the shape", lambda: multi_label_lpl(u, y, SIGN[:2], BOUNDS)),
        ("bounds has the shape", lambda: multi_label_lpl(u, y, SIGN, BOUNDS[:2])),
    ):
        with pytest.raises(ValueError, match=match):
            call()
