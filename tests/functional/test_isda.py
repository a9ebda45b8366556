import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import (
    BatchStatistics,
    ClassCovariance,
    batch_statistics,
    class_covariance_update,
    isda_logits,
    isda_perturbation,
    isda_term,
    pool,
)

C, A = 4, 3


def empty(diagonal=False, dtype=torch.float64):
    shape = (C, A) if diagonal else (C, A, A)
    return ClassCovariance(torch.zeros(C), torch.zeros(C, A, dtype=dtype), torch.zeros(shape, dtype=dtype))


def draw(batch, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(A, A, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    features = torch.randn(batch, A, dtype=torch.float64, generator=generator) @ root + shift
    # class 3 never occurs
    return features, torch.randint(C - 1, (batch,), generator=generator)


def joined(features, labels):
    for c in range(C):
        own = features[labels == c].numpy()
        if len(own):
            yield c, own.mean(0), np.cov(own.T, bias=True)


def random_sigma(diagonal=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(C, A, A, dtype=torch.float64, generator=generator)
    return root.square().sum(2) if diagonal else root @ root.mT


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.booleans(), st.sampled_from([0.0, 100.0]))
def test_stream_equals_the_covariance_of_all_samples(sizes, diagonal, shift):
    state, parts = empty(diagonal), []
    for seed, size in enumerate(sizes):
        features, labels = draw(size, seed, shift)
        state = class_covariance_update(*state, features, labels)
        parts.append((features, labels))
    features, labels = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    assert state.samples.tolist() == torch.bincount(labels, minlength=C).tolist()
    for c, mean, covariance in joined(features, labels):
        np.testing.assert_allclose(state.mean[c].numpy(), mean, rtol=1e-10, atol=1e-10)
        expected = np.diag(covariance) if diagonal else covariance
        np.testing.assert_allclose(state.covariance[c].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert not state.mean[3].any()
    assert not state.covariance[3].any()


@pytest.mark.parametrize("diagonal", [False, True])
def test_sums_of_two_ranks_are_those_of_one_process(diagonal):
    state = class_covariance_update(*empty(diagonal), *draw(12, 7))
    features, labels = draw(20)
    halves = [batch_statistics(features[s], labels[s], state.mean, diagonal) for s in (slice(0, 5), slice(5, 20))]
    reduced = BatchStatistics(*[a + b for a, b in zip(*halves, strict=True)])
    for ours, theirs in zip(pool(state, reduced), class_covariance_update(*state, features, labels), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_large_mean_costs_no_digits_in_single_precision():
    state = empty(dtype=torch.float32)
    features, labels = draw(300, shift=500.0)
    for part in range(0, 300, 30):
        state = class_covariance_update(*state, features[part : part + 30].float(), labels[part : part + 30])
    for c, _, covariance in joined(features, labels):
        np.testing.assert_allclose(state.covariance[c].numpy(), covariance, rtol=0.05, atol=0.05)


def test_update_is_pure_and_without_gradient():
    state = empty()
    features, labels = draw(6)
    new = class_covariance_update(*state, features.requires_grad_(), labels)
    assert not any(t.any() for t in state)
    assert not any(t.requires_grad for t in new)
    unchanged = class_covariance_update(*new, features[:0], labels[:0])
    for before, after in zip(new, unchanged, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-15, atol=0)


@pytest.mark.parametrize("diagonal", [False, True])
def test_term_is_the_quadratic_form(diagonal):
    W, sigma = torch.randn(C, A, dtype=torch.float64) * 3 + 5, random_sigma(diagonal)
    present = torch.tensor([2, 0])
    rows = isda_term(W, sigma, present)
    for row, k in zip(rows, present.tolist(), strict=True):
        S = np.diag(sigma[k].numpy()) if diagonal else sigma[k].numpy()
        for j in range(C):
            difference = (W[j] - W[k]).numpy()
            assert row[j].item() == pytest.approx(0.5 * difference @ S @ difference, rel=1e-10)
    assert rows[0, 2] == 0
    assert rows[1, 0] == 0


@pytest.mark.parametrize("diagonal", [False, True])
def test_gradients_reach_weight_and_covariance(diagonal):
    W, sigma = torch.randn(C, A, dtype=torch.float64), random_sigma(diagonal)
    u, y = torch.randn(5, C, dtype=torch.float64), torch.tensor([0, 1, 3, 1, 0])
    inputs = (u.requires_grad_(), W.requires_grad_(), sigma.requires_grad_())
    assert gradcheck(lambda u, W, s: isda_logits(u, W, s, y, 0.7), inputs)
    assert gradgradcheck(lambda u, W, s: isda_logits(u, W, s, y, 0.7), inputs)
    if not diagonal:
        (gradient,) = torch.autograd.grad(isda_logits(u, W, sigma, y, 0.7).square().sum(), sigma)
        torch.testing.assert_close(gradient, gradient.mT)
        assert not gradient[2].any()


def test_logits_by_the_published_loop():
    W, sigma = torch.randn(C, A, dtype=torch.float64), random_sigma()
    u, y = torch.randn(6, C, dtype=torch.float64), torch.tensor([0, 1, 3, 1, 0, 2])
    expected = u.clone()
    for i in range(6):
        D = W - W[y[i]]
        expected[i] += 0.5 * 0.3 * torch.diagonal(D @ sigma[y[i]] @ D.t())
    torch.testing.assert_close(isda_logits(u, W, sigma, y, 0.3), expected)
    torch.testing.assert_close(isda_perturbation(W, sigma, y) * 0.3 + u, expected)
    torch.testing.assert_close(isda_logits(u, W, sigma, y, torch.tensor(0.3, dtype=torch.float64)), expected)
    assert torch.equal(isda_logits(u, W, sigma, y, 0.0), u)


def test_every_loss_rises():
    W, sigma = torch.randn(C, A, dtype=torch.float64), random_sigma()
    u, y = torch.randn(50, C, dtype=torch.float64), torch.randint(C, (50,))
    loss = torch.nn.functional.cross_entropy
    assert (loss(isda_logits(u, W, sigma, y), y, reduction="none") >= loss(u, y, reduction="none")).all()


def test_half_precision_and_empty_batch():
    W, sigma = torch.randn(C, A, dtype=torch.bfloat16), random_sigma().float()
    u, y = torch.randn(3, C, dtype=torch.bfloat16), torch.tensor([0, 1, 1])
    perturbed = isda_logits(u, W, sigma, y)
    assert perturbed.dtype == torch.float32
    assert perturbed.isfinite().all()
    assert isda_logits(u[:0], W, sigma, y[:0]).shape == (0, C)


@pytest.mark.parametrize("diagonal", [False, True])
def test_full_precision_inside_autocast(diagonal):
    W, sigma = torch.randn(C, A), random_sigma(diagonal).float()
    features, labels = draw(20)
    state = ClassCovariance(torch.zeros(C), torch.zeros(C, A), torch.zeros_like(sigma))

    def both():
        return isda_perturbation(W, sigma, labels), *class_covariance_update(*state, features.float(), labels)

    plain = both()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = both()
    for ours, theirs in zip(plain, mixed, strict=True):
        assert torch.equal(ours, theirs)


def test_bad_input():
    W, sigma = torch.randn(C, A), random_sigma().float()
    u, y = torch.randn(3, C), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="lam=-1"):
        isda_logits(u, W, sigma, y, -1.0)
    with pytest.raises(ValueError, match="covariance"):
        isda_term(W, sigma[:, :2], y)
    with pytest.raises(ValueError, match="features of shape"):
        batch_statistics(u, y, torch.zeros(C, A))


def test_running_covariances_may_move_on_before_the_backward_pass():
    weight, covariance = torch.randn(3, 4, requires_grad=True), torch.eye(4).repeat(3, 1, 1)
    labels = torch.tensor([0, 2])
    term = isda_term(weight, covariance, labels)
    (expected,) = torch.autograd.grad(term.sum(), weight, retain_graph=True)
    covariance.zero_()
    (found,) = torch.autograd.grad(term.sum(), weight, retain_graph=True)
    assert torch.equal(found, expected)
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(term.sum(), weight, create_graph=True)
