"""Penalties on domains against their definitions, one domain and one pair at a time."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck

from lightning_perturb.functional import (
    coral_penalty,
    domain_balance,
    domain_means,
    feature_variance,
    irm_penalty,
    irm_slopes,
    vrex_penalty,
)

DOMAIN = torch.tensor([4, 0, 0, 4, 7, 0, 4, 4, 0, 9])


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(10, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 1, 2])


def risks(logits, y):
    return [F.cross_entropy(logits[d == DOMAIN], y[d == DOMAIN]) for d in DOMAIN.unique()]


def test_means_and_balance(drawn):
    losses = F.cross_entropy(*drawn, reduction="none")
    expected = torch.stack(risks(*drawn))
    torch.testing.assert_close(domain_means(losses, DOMAIN), expected)
    torch.testing.assert_close((domain_balance(DOMAIN).double() * losses).mean(), expected.mean())
    features = domain_means(drawn[0], DOMAIN)
    torch.testing.assert_close(features[1], drawn[0][DOMAIN == 4].mean(0))
    assert float(domain_balance(DOMAIN).mean()) == pytest.approx(1)
    assert torch.equal(domain_balance(torch.full((3,), 5)), torch.ones(3))


def irmv1(logits, y):
    """The published form: a scale of 1 that is multiplied to the logits, and the gradient in it."""
    squares = []
    for d in DOMAIN.unique():
        scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
        target = y[d == DOMAIN]
        (slope,) = grad(F.cross_entropy(scale * logits[d == DOMAIN], target), scale, create_graph=True)
        squares.append(slope.square())
    return torch.stack(squares).mean()


@pytest.mark.parametrize("soft", [False, True])
def test_irm_against_automatic_differentiation(drawn, soft):
    logits, y = drawn
    y = torch.rand(10, 3, dtype=torch.float64).softmax(1) if soft else y
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    found, expected = irm_penalty(irm_slopes(ours, y), DOMAIN), irmv1(theirs, y)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad(found, ours)[0], grad(expected, theirs)[0])


def test_unbiased_irm_is_the_mean_over_all_halves(drawn):
    slopes = irm_slopes(*drawn)
    by_domain = []
    for d in DOMAIN.unique():
        own = slopes[d == DOMAIN]
        halves = [
            own[list(one)].mean() * own[[i for i in range(len(own)) if i not in one]].mean()
            for one in combinations(range(len(own)), len(own) // 2)
            if one
        ]
        by_domain.append(torch.stack(halves).mean() if halves else torch.zeros((), dtype=own.dtype))
    torch.testing.assert_close(irm_penalty(slopes, DOMAIN, unbiased=True), torch.stack(by_domain).mean())


def test_the_unbiased_penalty_has_no_bias():
    torch.manual_seed(0)
    slopes, domain = torch.randn(4000, 8, dtype=torch.float64) + 0.5, torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    biased, unbiased = (torch.stack([irm_penalty(s, domain, unbiased=u) for s in slopes]) for u in (False, True))
    assert float(unbiased.mean()) == pytest.approx(0.25, abs=0.02)
    assert float(biased.mean()) == pytest.approx(0.25 + (1 / 3 + 1 / 5) / 2, abs=0.02)


def test_vrex(drawn):
    expected = torch.stack(risks(*drawn)).var(correction=0)
    losses = F.cross_entropy(*drawn, reduction="none")
    torch.testing.assert_close(vrex_penalty(losses, DOMAIN), expected)
    assert float(vrex_penalty(losses, torch.zeros(10, dtype=torch.int64))) == 0


@pytest.mark.parametrize("means", [False, True])
def test_coral_over_pairs(drawn, means):
    h = drawn[0]
    pairs = []
    # 7 and 9 occur once; a third domain of two
    domain = DOMAIN.clone()
    domain[-1] = 7
    for one, other in combinations([0, 4, 7], 2):
        a, b = h[domain == one], h[domain == other]
        pairs.append((torch.cov(a.T) - torch.cov(b.T)).square().mean())
        if means:
            pairs[-1] = pairs[-1] + (a.mean(0) - b.mean(0)).square().mean()
    torch.testing.assert_close(coral_penalty(h, domain, means), torch.stack(pairs).mean())
    a, b = h[DOMAIN == 0], h[DOMAIN == 4]
    alone = coral_penalty(h, DOMAIN, means=False)
    torch.testing.assert_close(alone, (torch.cov(a.T) - torch.cov(b.T)).square().mean())


def test_feature_variance(drawn):
    h = drawn[0]
    expected = torch.stack([h[d == DOMAIN].var(0).mean() for d in (0, 4)]).mean()
    torch.testing.assert_close(feature_variance(h, DOMAIN), expected)


PENALTIES = {
    "irm": lambda h, d: irm_penalty(irm_slopes(h, torch.arange(len(h)) % 3), d),
    "irm unbiased": lambda h, d: irm_penalty(irm_slopes(h, torch.arange(len(h)) % 3), d, unbiased=True),
    "vrex": lambda h, d: vrex_penalty(h.square().sum(1), d),
    "coral": coral_penalty,
    "variance": feature_variance,
}


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_and_the_smallest_batches(name, drawn):
    penalty = PENALTIES[name]
    assert gradcheck(lambda h: penalty(h, DOMAIN), drawn[0].requires_grad_())
    for size in (1, 2):
        h = torch.randn(size, 3, requires_grad=True)
        value = penalty(h, torch.arange(size))
        assert value.isfinite()
        assert grad(value, h, allow_unused=True)[0].isfinite().all()
    half = penalty(drawn[0].detach().bfloat16(), DOMAIN)
    assert half.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = penalty(drawn[0].detach().float(), DOMAIN)
    torch.testing.assert_close(inside, penalty(drawn[0].detach().float(), DOMAIN))


def test_extreme_logits():
    u = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]], requires_grad=True)
    value = irm_penalty(irm_slopes(u, torch.tensor([1, 2])), torch.tensor([0, 1]))
    assert grad(value, u)[0].isfinite().all()


def test_bad_input():
    with pytest.raises(ValueError, match=r"domain has the shape \(2,\).*\[3\]"):
        vrex_penalty(torch.ones(3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"dtype torch\.float32"):
        irm_penalty(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"features have the shape \(2,\)"):
        coral_penalty(torch.ones(2), torch.tensor([0, 1]))
