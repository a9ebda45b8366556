import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from lightning_perturb.functional import (
    adversarial_logits,
    cross_entropy,
    fairness_term,
    feature_gradient,
    generalization_term,
    iada_logits,
    isda_logits,
    regularization_term,
    robustness_term,
)

B, C, A = 7, 4, 3


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    h, W, b, root = normal(B, A), normal(C, A), normal(C), normal(C, A, A)
    y = torch.randint(C, (B,), generator=generator)
    epsilon = torch.tanh(normal(B))
    log_prior = normal(C).log_softmax(0)
    return h, W, b, y, root @ root.mT, epsilon, log_prior


def test_feature_gradient_is_that_of_autograd():
    h, W, b, y, *_ = draw()
    h.requires_grad_()
    u = h @ W.t() + b
    (expected,) = torch.autograd.grad(cross_entropy(u, y).sum(), h, retain_graph=True)
    gradient = feature_gradient(u, y, W)
    torch.testing.assert_close(gradient, expected)
    assert not gradient.requires_grad


def test_logits_by_equation_6():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    u = h @ W.t() + b
    perturbed = iada_logits(u, y, W, epsilon, sigma, 0.3, 0.7, log_prior)
    p = u.softmax(1)
    for i in range(B):
        k = int(y[i])
        delta = epsilon[i] * torch.sign((p[i] - torch.eye(C)[k]) @ W)
        for j in range(C):
            difference = W[j] - W[k]
            expected = W[j] @ (h[i] + delta) + b[j] + 0.3 * 0.5 * difference @ sigma[k] @ difference
            assert perturbed[i, j].item() == pytest.approx((expected + 0.7 * log_prior[j]).item())


def test_is_the_upper_bound_of_the_augmented_loss():
    # Monte Carlo over the augmentation of [iada 2], which the loss bounds from above [iada 5] (beta = 0)
    h, W, b, y, sigma, epsilon, _ = draw()
    u = h @ W.t() + b
    delta = epsilon.unsqueeze(1) * feature_gradient(u, y, W).sign()
    bound = cross_entropy(iada_logits(u, y, W, epsilon, sigma, 0.05, 0.0), y)
    noise = torch.randn(4000, B, A, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    root = torch.linalg.cholesky(0.05 * sigma[y])
    augmented = h + delta + torch.einsum("bij,sbj->sbi", root, noise)
    sampled = cross_entropy((augmented @ W.t() + b).flatten(0, 1), y.repeat(4000)).view(4000, B).mean(0)
    without = cross_entropy(iada_logits(u, y, W, epsilon), y)
    assert (sampled < bound + 0.01).all()
    # and the spread is what it bounds: without its term it would be none
    assert (sampled > without + 0.01).any()


def test_each_term_can_be_left_out():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    u = h @ W.t() + b
    assert torch.equal(iada_logits(u, y, W), u)
    torch.testing.assert_close(iada_logits(u, y, W, covariance=sigma, alpha=0.3), isda_logits(u, W, sigma, y, 0.3))
    torch.testing.assert_close(iada_logits(u, y, W, log_prior=log_prior, beta=2.0), u + 2 * log_prior)
    full = iada_logits(u, y, W, epsilon, sigma, 0.0, 0.0, log_prior)
    torch.testing.assert_close(iada_logits(u, y, W, epsilon), full)
    torch.testing.assert_close(iada_logits(u, y, W, 0.0), u)


def test_sign_of_epsilon_raises_or_lowers_the_loss():
    h, W, b, y, *_ = draw()
    u = h @ W.t() + b
    plain = cross_entropy(u, y)
    assert (cross_entropy(iada_logits(u, y, W, 0.05), y) > plain).all()
    assert (cross_entropy(iada_logits(u, y, W, -0.05), y) < plain).all()


def test_terms_of_table_1_are_the_first_order_of_the_loss():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    u = h @ W.t() + b
    terms = (
        0.3 * generalization_term(u, y, W, sigma)
        + robustness_term(u, y, W, epsilon)
        + 0.7 * fairness_term(u, y, log_prior)
    )
    t = 1e-6
    loss = cross_entropy(iada_logits(u, y, W, t * epsilon, sigma, t * 0.3, t * 0.7, log_prior), y)
    torch.testing.assert_close((loss - cross_entropy(u, y)) / t, terms, rtol=1e-3, atol=1e-4)


def test_terms_by_hand():
    h, W, b, y, sigma, epsilon, _ = draw()
    u = h @ W.t() + b
    # the robustness term is epsilon ||g||_1, since sum_j q_j (w_j - w_y) = g
    expected = epsilon * feature_gradient(u, y, W).abs().sum(1)
    torch.testing.assert_close(robustness_term(u, y, W, epsilon), expected)
    assert (generalization_term(u, y, W, sigma) >= 0).all()
    balanced = torch.full((C,), -math.log(C), dtype=torch.float64)
    torch.testing.assert_close(fairness_term(u, y, balanced), torch.zeros(B, dtype=torch.float64))
    prior = torch.tensor([0.97, 0.01, 0.01, 0.01], dtype=torch.float64).log()
    assert (fairness_term(u, torch.zeros_like(y), prior) < 0).all()
    assert (fairness_term(u, torch.ones_like(y), prior) > 0).all()


def test_gradients():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    alpha, beta = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.7))
    u = h @ W.t() + b
    inputs = (W.requires_grad_(), epsilon.requires_grad_(), sigma.requires_grad_(), alpha, beta)

    def logits(W, epsilon, sigma, alpha, beta):
        # the logits are another input: through the sign, which is a constant, finite differences would see them
        return iada_logits(u, y, W, epsilon, sigma, alpha, beta, log_prior)

    assert gradcheck(logits, inputs)
    assert gradgradcheck(logits, inputs)


def test_half_precision_and_diagonal():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    u = (h @ W.t() + b).bfloat16()
    diagonal = sigma.diagonal(dim1=1, dim2=2).float()
    perturbed = iada_logits(u * 1e3, y, W.float(), epsilon.bfloat16(), diagonal, log_prior=log_prior.float())
    assert perturbed.dtype == torch.float32
    assert perturbed.isfinite().all()


def test_full_precision_inside_autocast():
    h, W, b, y, sigma, epsilon, log_prior = draw()
    arguments = ((h @ W.t() + b).float(), y, W.float(), epsilon.float(), sigma.float(), 0.5, 1.0, log_prior.float())
    plain = iada_logits(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = iada_logits(*arguments)
    assert torch.equal(plain, mixed)


def test_bad_input():
    h, W, b, y, sigma, _, log_prior = draw()
    u = h @ W.t() + b
    with pytest.raises(ValueError, match="weight has the shape"):
        iada_logits(u, y, W[:3])
    with pytest.raises(ValueError, match="log_prior has the shape"):
        iada_logits(u, y, W, log_prior=log_prior[:3])
    with pytest.raises(ValueError, match="covariance"):
        iada_logits(u, y, W, covariance=sigma[:2])


def test_a_regularization_term_is_the_slope_of_the_loss_along_the_shift():
    h, W, b, y, *_ = draw(3)
    u = h @ W.t() + b
    for shift in (torch.randn(B, C, dtype=torch.float64), torch.randn(C, dtype=torch.float64)):
        steps = torch.tensor(0.0, dtype=torch.float64, requires_grad=True).expand(B)
        (slope,) = torch.autograd.grad(cross_entropy(u + steps[:, None] * shift, y).sum(), steps)
        torch.testing.assert_close(regularization_term(u, y, shift), slope)


def test_adversarial_logits_are_those_of_moved_features():
    h, W, b, y, *_ = draw(4)
    u = h @ W.t() + b
    sign = feature_gradient(u, y, W).sign()
    torch.testing.assert_close(u + adversarial_logits(u, y, W), (h + sign) @ W.t() + b)
    # a step along the gradient's sign raises the loss of every sample
    assert bool((cross_entropy(u + 1e-3 * adversarial_logits(u, y, W), y) > cross_entropy(u, y)).all())
