import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_perturb.functional import keep_rate, small_loss, symmetric_divergence


def test_the_schedule():
    # linear over ten epochs, then constant
    found = [keep_rate(epoch, 0.4) for epoch in (0, 1, 5, 10, 50)]
    assert found == pytest.approx([1.0, 0.96, 0.8, 0.6, 0.6])
    assert keep_rate(2, 0.4, 8, exponent=2.0) == pytest.approx(1 - 0.4 * 4 / 8)
    assert keep_rate(4, 0.4, 8, exponent=0.5) == pytest.approx(1 - 0.4 * 2 / 8)
    assert keep_rate(7, 0.0) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("inf")]), max_size=12), st.floats(0.01, 1.0))
def test_the_smallest_losses_are_kept(losses, rate):
    kept = small_loss(torch.tensor(losses), rate)
    count = min(max(int(np.floor(rate * len(losses) + 1e-9)), 1), len(losses))
    order = sorted(range(len(losses)), key=lambda place: (losses[place], place))
    assert kept.nonzero().flatten().tolist() == sorted(order[:count])


def test_a_rate_loses_no_sample_to_rounding():
    assert int(small_loss(torch.rand(10), 1 - 0.9).sum()) == 1
    assert int(small_loss(torch.rand(100), keep_rate(9, 0.1)).sum()) == 91


def test_the_divergence_goes_both_ways():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(6, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    p, q = u.softmax(1).numpy(), v.softmax(1).numpy()
    np.testing.assert_allclose(symmetric_divergence(u, v).numpy(), ((p - q) * np.log(p / q)).sum(1))
    torch.testing.assert_close(symmetric_divergence(u, v), symmetric_divergence(v, u))
    assert not symmetric_divergence(u, u + 3).abs().gt(1e-12).any()
    assert gradcheck(symmetric_divergence, (u.requires_grad_(), v.requires_grad_()))
    big = (1e4 * u.detach()).bfloat16()
    assert symmetric_divergence(big, -big).dtype == torch.float32
    assert symmetric_divergence(big, -big).isfinite().all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: keep_rate(-1, 0.2), "epoch=-1"),
        (lambda: keep_rate(0, 1.0), r"forget_rate=1\.0"),
        (lambda: keep_rate(0, 0.2, 0), "gradual_epochs=0"),
        (lambda: keep_rate(0, 0.2, 1, 0.0), r"exponent=0\.0"),
        (lambda: small_loss(torch.rand(3), 0.0), r"rate=0\.0"),
        (lambda: small_loss(torch.rand(3, 1), 0.5), "losses have the shape"),
        (lambda: symmetric_divergence(torch.rand(3, 2), torch.rand(2, 2)), "peer_logits have the shape"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
