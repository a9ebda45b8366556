import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lightning_perturb.functional import (
    class_confidence,
    confidence_bounds,
    confidence_split,
    confidence_threshold,
    cross_entropy,
    frequency_bounds,
    frequency_rank,
    frequency_split,
    lpl,
    lpl_steps,
    mean_confidence_split,
)


def draw(batch=12, classes=5, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, classes, dtype=torch.float64, generator=generator) * scale
    # the last class never occurs
    return u, torch.randint(classes - 1, (batch,), generator=generator)


def walk(u, y, sign, steps, alpha, norm, resplit=None):
    """Algorithm 1 as the published code runs it: a C x C matrix in every step, and each class picks its own step."""
    u, y = u.numpy(), y.numpy()
    classes = u.shape[1]
    current, history = u.copy(), []
    for _ in range(max(steps)):
        p = np.exp(current - current.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        means = np.zeros((classes, classes))
        for c in range(classes):
            if (y == c).any():
                means[c] = p[y == c].mean(0)
        G = means - np.eye(classes)
        length = {"row": np.sqrt((G**2).sum(1)), "column": np.sqrt((G**2).sum(0)), "none": np.ones(classes)}[norm]
        s = sign if resplit is None else resplit(means.diagonal(), np.bincount(y, minlength=classes))
        current = current + (alpha * np.asarray(s)[:, None] * G / length[:, None])[y]
        history.append(current - u)
    history = np.array([np.zeros_like(u), *history])
    return history[np.asarray(steps)[y], np.arange(len(y))]


@pytest.mark.parametrize("norm", ["row", "none", "column"])
@pytest.mark.parametrize("steps", [[3] * 5, [0, 1, 4, 2, 7]])
def test_walk_of_algorithm_1(norm, steps):
    u, y = draw()
    sign = torch.tensor([1.0, -1, -1, 1, 1])
    delta = lpl(u, y, sign, torch.tensor(steps), 0.15, norm)
    np.testing.assert_allclose(delta.numpy(), walk(u, y, sign.numpy(), steps, 0.15, norm), atol=1e-12)


def test_split_is_frozen_or_asked_again():
    u, y = draw(scale=0.3)
    sign = np.where(class_confidence(u, y)[0] <= mean_of_present(u, y), 1, -1)
    np.testing.assert_allclose(lpl(u, y, steps=6, alpha=0.5).numpy(), walk(u, y, sign, [6] * 5, 0.5, "row"))

    def resplit(q, n):
        # the reverse of LPL's split drives every class across the threshold
        return np.where(q <= 0.3, -1, 1)

    again = lpl(u, y, lambda u, y: -confidence_split(class_confidence(u, y)[0], 0.3), 6, 0.5)
    np.testing.assert_allclose(again.numpy(), walk(u, y, None, [6] * 5, 0.5, "row", resplit), atol=1e-12)
    frozen = lpl(u, y, -confidence_split(class_confidence(u, y)[0], 0.3), 6, 0.5)
    assert (again - frozen).abs().max() > 0.1


def mean_of_present(u, y):
    p = u.softmax(1)[torch.arange(len(y)), y].numpy()
    return np.mean([p[y.numpy() == c].mean() for c in np.unique(y)])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12), st.floats(0.01, 0.5), st.sampled_from(["row", "none"]))
def test_bound_direction_and_zero_sum(seed, steps, alpha, norm):
    u, y = draw(seed=seed)
    sign = torch.tensor([1.0, -1, -1, 1, 1])
    delta = lpl(u, y, sign, steps, alpha, norm)
    np.testing.assert_allclose(delta.sum(1).numpy(), 0, atol=1e-10)
    lengths = delta.norm(dim=1) if norm == "row" else delta.abs().amax(1)
    assert (lengths <= steps * alpha + 1e-9).all()
    before, after = cross_entropy(u, y), cross_entropy(u + delta, y)
    for c in y.unique():
        change = (after - before)[y == c].mean() * sign[c]
        assert change > 0 if steps else change == 0
        # samples of a class share one perturbation
        assert (delta[y == c] == delta[y == c][0]).all()


def test_row_norm_attains_the_bound():
    u, y = draw(64, 10)
    lengths = lpl(u, y, torch.ones(10), 10, 0.15).norm(dim=1)
    assert (lengths > 0.95 * 1.5).all()


@pytest.mark.parametrize("steps", [0, torch.zeros(5, dtype=torch.int64)])
def test_no_steps_are_cross_entropy_exactly(steps):
    u, y = draw()
    assert torch.equal(cross_entropy(u + lpl(u, y, steps=steps), y), cross_entropy(u, y))


def test_one_class_one_sample_two_classes_empty_batch():
    u, y = draw(8, 2)
    assert lpl(u, y, steps=3).isfinite().all()
    assert lpl(u[:1], y[:1], steps=3).isfinite().all()
    assert lpl(u[:0], y[:0]).shape == (0, 2)
    # one class is its own mean, and its loss is to rise
    assert (cross_entropy(u + lpl(u, y * 0, steps=3), y * 0).mean() > cross_entropy(u, y * 0).mean()).item()


def test_gathered_batch_gives_each_rank_its_rows():
    # what two ranks do: both compute on all rows, each keeps its own
    u, y = draw()
    whole = lpl(u, y, steps=4)
    assert (lpl(u[:6], y[:6], steps=4) - whole[:6]).abs().max() > 1e-3
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(lpl(u[order], y[order], steps=4), whole[order])


def test_detached_by_default_and_differentiable_on_demand():
    u, y = draw()
    u.requires_grad_()
    sign = torch.tensor([1.0, -1, -1, 1, 1])
    assert not lpl(u, y, sign).requires_grad
    for norm in ("row", "none", "column"):
        assert gradcheck(lambda u, norm=norm: lpl(u, y, sign, 3, 0.1, norm, detach=False), (u,))
    with torch.no_grad():
        assert not lpl(u, y, sign, detach=False).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("norm", ["row", "none", "column"])
def test_finite_also_where_a_class_is_learnt(dtype, scale, norm):
    u, y = draw()
    delta = lpl((u.clamp(-3, 3) * scale).to(dtype), y, None, 10, 0.15, norm)
    assert delta.dtype == torch.float32
    assert delta.isfinite().all()
    learnt = torch.eye(5)[y] * 1e4
    assert lpl(learnt, y, torch.ones(5), 10, 0.15, norm).isfinite().all()


def test_full_precision_inside_autocast():
    u, y = draw()
    u = u.float()
    plain = lpl(u, y, steps=5), class_confidence(u, y)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = lpl(u, y, steps=5), class_confidence(u, y)[0]
    for ours, theirs in zip(plain, mixed, strict=True):
        assert torch.equal(ours, theirs)


def test_confidence_by_hand():
    u, y = draw()
    q, n = class_confidence(u, y)
    p = u.softmax(1).numpy()
    for c in range(5):
        own = p[y.numpy() == c, c]
        assert n[c] == len(own)
        assert q[c].item() == pytest.approx(own.mean() if len(own) else 0.0)
    assert confidence_threshold(q, n).item() == pytest.approx(mean_of_present(u, y))
    assert confidence_threshold(q, n, "zero").item() == pytest.approx(mean_of_present(u, y) * len(y.unique()) / 5)
    assert confidence_threshold(q, n * 0).item() == 0
    assert confidence_split(torch.tensor([0.1, 0.5, 0.9]), 0.5).tolist() == [1, 1, -1]
    assert confidence_split(q, 1.1).tolist() == [1] * 5
    assert torch.equal(mean_confidence_split(u, y), confidence_split(q, confidence_threshold(q, n)))


def test_frequency_split_by_rank_not_by_id():
    counts = torch.tensor([5, 100, 20, 20, 1])
    assert frequency_rank(counts).tolist() == [4, 1, 2, 3, 5]
    assert frequency_split(counts, 2).tolist() == [1, -1, -1, 1, 1]
    assert frequency_split(counts, 0).tolist() == [1] * 5
    assert frequency_split(counts, 6).tolist() == [-1] * 5


def test_confidence_bounds():
    q, n = torch.tensor([0.1, 0.4, 0.9, 0.0]), torch.tensor([2, 1, 3, 0])
    np.testing.assert_allclose(confidence_bounds(q, n, 0.5, 0.2, 0.1).numpy(), [0.24, 0.21, 0.24, 0.2], rtol=1e-6)
    side = confidence_bounds(q, n, 0.5, 0.0, 0.1, bound_norm="side_max")
    np.testing.assert_allclose(side.numpy(), [0.1, 0.025, 0.1, 0.0], rtol=1e-5)
    assert confidence_bounds(q, n, 0.5, 0.3, 0.0).tolist() == pytest.approx([0.3] * 4)
    assert confidence_bounds(q, n, 0.0, 0.0, 1.0, bound_norm="side_max").isfinite().all()


def test_frequency_bounds():
    counts = torch.tensor([50, 500, 5, 250])
    bounds = frequency_bounds(counts, 2, 0.5, 2.0)
    np.testing.assert_allclose(bounds.numpy(), [0.5 + 2 * 0.1, 2.5, 2.5, 0.5 + 2 * 0.5], rtol=1e-6)
    np.testing.assert_allclose(frequency_bounds(counts, 2, 0.0, 1.0, head_scale=0.6)[1], 0.6)
    q = torch.tensor([0.5, 0.8, 0.1, 0.4])
    by_q = frequency_bounds(counts, 2, 0.0, 1.0, statistic=q)
    np.testing.assert_allclose(by_q.numpy(), [0.2, 1.0, 1.0, 0.5], rtol=1e-6)
    assert frequency_bounds(counts, 2, 0.0, 1.0, statistic=q * 0).isfinite().all()
    # the most frequent (0.8) and the rarest class (0.1) are unknown: 250 samples (0.4) and 50 (0.5) are the ends
    known = torch.tensor([True, False, False, True])
    partly = frequency_bounds(counts, 2, 0.25, 1.0, statistic=torch.tensor([0.5, 0.0, 0.0, 0.4]), known=known)
    np.testing.assert_allclose(partly.numpy(), [1.25, 0.25, 0.25, 1.25], rtol=1e-6)
    assert frequency_bounds(counts, 2, 0.25, 1.0, statistic=q, known=known & False).tolist() == [0.25] * 4


def test_published_increments_of_cifar10_lt():
    # 100:1 over ten classes, f = .6, S = 10, alpha = .15: 6 4 2 1 | 1 1 2 4 6 10
    counts = torch.tensor([int(5000 * 0.01 ** (k / 9)) for k in range(10)])
    bounds = frequency_bounds(counts, 4, 0.0, 10 * 0.15, head_scale=0.6)
    assert lpl_steps(bounds, 0.15, "round").tolist() == [6, 4, 2, 1, 1, 1, 2, 4, 6, 10]


def test_steps():
    assert lpl_steps(torch.tensor([0.3, 0.29, 0.0, 1.5]), 0.1).tolist() == [3, 2, 0, 15]
    assert lpl_steps(torch.tensor([0.3, 0.26, 0.0, 0.01]), 0.1, "round").tolist() == [3, 3, 0, 1]
    for k in range(1, 200):
        assert lpl_steps(torch.tensor([k * 0.01]), 0.01).item() == k


def test_bad_input():
    u, y = draw()
    for match, call in (
        ("alpha=0", lambda: lpl(u, y, alpha=0.0)),
        ("steps=-1", lambda: lpl(u, y, steps=-1)),
        ("grad_norm='l1'", lambda: lpl(u, y, grad_norm="l1")),
        ("sign has the shape", lambda: lpl(u, y, torch.ones(4))),
        ("steps has the shape", lambda: lpl(u, y, steps=torch.ones(4, dtype=torch.int64))),
        ("absent='skip'", lambda: mean_confidence_split(u, y, "skip")),
        ("tau=-1", lambda: frequency_split(torch.ones(3), -1)),
        (r"classes \[1\]", lambda: frequency_bounds(torch.tensor([3, 0]), 1)),
        ("statistic has the shape", lambda: frequency_bounds(torch.tensor([3, 1]), 1, statistic=torch.ones(3))),
        ("eps=-1", lambda: confidence_bounds(torch.ones(2), torch.ones(2), 0.5, -1.0)),
        ("bound_norm='max'", lambda: confidence_bounds(torch.ones(2), torch.ones(2), 0.5, bound_norm="max")),
        ("rounding='up'", lambda: lpl_steps(torch.ones(2), 0.1, "up")),
        ("target", lambda: lpl(u, u)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert math.isfinite(lpl(u, y).sum())
