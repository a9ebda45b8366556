import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch.autograd import gradcheck

from lightning_perturb.functional import (
    class_sums,
    confusion_counts,
    confusion_rates,
    reasoned_covariance,
    risda_mean_term,
)


def ids(seed, count=40, classes=4):
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_confusion_is_scikit_learn_s():
    y, predicted = ids(0), ids(1)
    counts = confusion_counts(predicted, y, 4)
    np.testing.assert_array_equal(counts.numpy(), confusion_matrix(y, predicted, labels=range(4)))
    np.testing.assert_allclose(
        confusion_rates(counts).numpy(), confusion_matrix(y, predicted, normalize="true"), rtol=1e-6
    )
    assert torch.equal(confusion_counts(predicted[:9], y[:9], 4) + confusion_counts(predicted[9:], y[9:], 4), counts)


def test_a_class_that_was_not_seen_is_taken_for_itself():
    rates = confusion_rates(confusion_counts(torch.tensor([2, 2, 0]), torch.tensor([0, 0, 0]), 3))
    torch.testing.assert_close(rates, torch.tensor([[1 / 3, 0, 2 / 3], [0, 1, 0], [0, 0, 1.0]]))


@pytest.mark.parametrize("full", [True, False])
def test_covariances_of_the_tail_are_mixed(full):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 3, 3, dtype=torch.float64, generator=generator)
    sigma = root @ root.mT if full else root.square()[:, 0]
    rates = torch.rand(4, 4, dtype=torch.float64, generator=generator)
    rates /= rates.sum(1, keepdim=True)
    tail = torch.tensor([False, True, False, True])
    before = sigma.clone()
    found = reasoned_covariance(sigma, rates, tail)
    for k in range(4):
        expected = sum(rates[k, j] * before[j] for j in range(4)) if tail[k] else before[k]
        torch.testing.assert_close(found[k], expected)
    assert torch.equal(sigma, before), "the argument was changed"
    assert torch.equal(reasoned_covariance(sigma, torch.eye(4), tail), sigma)
    assert torch.equal(reasoned_covariance(sigma, rates, torch.zeros(4, dtype=torch.bool)), sigma)


def test_mean_term():
    generator = torch.Generator().manual_seed(0)
    w, d = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    y = torch.tensor([3, 0, 3, 1])
    found = risda_mean_term(w, d, y)
    for i, k in enumerate(y.tolist()):
        for j in range(4):
            torch.testing.assert_close(found[i, j], (w[j] - w[k]) @ d[k])
    # logits of features that moved, but for a number that all classes share
    h = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    moved, still = (h + d[y]) @ w.t(), h @ w.t() + found
    torch.testing.assert_close(moved.softmax(1), still.softmax(1))
    assert gradcheck(lambda weight: risda_mean_term(weight, d, y), (w.requires_grad_(),))
    assert risda_mean_term(w.bfloat16(), d, y).dtype == torch.float32


def test_sums_of_classes():
    generator = torch.Generator().manual_seed(0)
    h, y = torch.randn(40, 3, generator=generator), ids(0) % 3
    sums = class_sums(h, y, 4)
    for c in range(4):
        torch.testing.assert_close(sums[c], h[y == c].sum(0))


def test_wrong_shapes():
    y = ids(0, 5)
    with pytest.raises(ValueError, match="target has the shape"):
        confusion_counts(y[:3], y, 4)
    with pytest.raises(ValueError, match=r"confusion of shape \(3, 3\)"):
        reasoned_covariance(torch.zeros(4, 2), torch.eye(3), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"weight of shape \(4, 2\) and shift of \(3, 2\)"):
        risda_mean_term(torch.zeros(4, 2), torch.zeros(3, 2), y)
