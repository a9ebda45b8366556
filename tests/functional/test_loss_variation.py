"""The relative loss variation of classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_perturb.functional import class_loss_variation, loss_variation_sums, relative_loss_variation


def test_it_is_the_quotient_and_none_where_the_loss_is_nothing():
    plain = torch.tensor([2.0, 0.5, 0.0, 1e-6, 1e-5])
    perturbed = torch.tensor([3.0, 0.1, 1.0, 2e-6, 3e-5])
    found = relative_loss_variation(perturbed, plain)
    torch.testing.assert_close(found, torch.tensor([0.5, -0.8, math.nan, math.nan, 2.0]), equal_nan=True)
    every = relative_loss_variation(perturbed, plain, smallest=0.0)
    torch.testing.assert_close(every, torch.tensor([0.5, -0.8, math.nan, 1.0, 2.0]), equal_nan=True)


def by_hand(target, perturbed, plain, classes, average):
    """Sample by sample, in plain Python; nothing is left out."""
    found = []
    for c in range(classes):
        rows = [(p, q) for t, p, q in zip(target, perturbed, plain, strict=True) if t == c]
        if not rows:
            found.append(math.nan)
        elif average == "sample":
            found.append(sum((p - q) / q for p, q in rows) / len(rows))
        else:
            found.append((sum(p for p, _ in rows) - sum(q for _, q in rows)) / sum(q for _, q in rows))
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(["sample", "class"]), st.integers(1, 30))
def test_classes_equal_a_plain_loop(seed, average, samples):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(4, (samples,), generator=generator)
    plain, perturbed = torch.rand(2, samples, generator=generator) * 3 + 0.01
    # batches add up
    cut = samples // 2
    sums = sum(
        loss_variation_sums(target[part], perturbed[part], plain[part], 5)
        for part in (slice(0, cut), slice(cut, samples))
    )
    assert sums.shape == (1, 5, 5)
    assert sums.dtype == torch.float64
    expected = by_hand(target.tolist(), perturbed.tolist(), plain.tolist(), 5, average)
    np.testing.assert_allclose(class_loss_variation(sums, average)[0], expected, rtol=1e-9)
    whole = class_loss_variation(sums.sum(1), average)
    np.testing.assert_allclose(whole, by_hand([0] * samples, perturbed.tolist(), plain.tolist(), 1, average), rtol=1e-9)


def test_soft_labels_count_for_their_classes():
    target = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    sums = loss_variation_sums(target, torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]), 2)
    assert sums[0, :, 0].tolist() == [1.25, 0.75]
    assert class_loss_variation(sums)[0].tolist() == pytest.approx([(1 + 0.25 * 0.5) / 1.25, 0.5])
    hard = loss_variation_sums(torch.tensor([1, 0]), torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]), 2)
    rows = loss_variation_sums(torch.eye(2)[[1, 0]], torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]), 2)
    assert torch.equal(hard, rows)


def test_positives_and_negatives_stand_apart():
    target = torch.tensor([[1, 0, 0], [1, 1, 0]])
    plain = torch.tensor([[1.0, 2.0, 4.0], [2.0, 0.0, 1.0]])
    perturbed = torch.tensor([[1.5, 1.0, 4.0], [4.0, 0.0, 2.0]])
    sums = loss_variation_sums(target, perturbed, plain, 3)
    assert sums.shape == (2, 3, 5)
    assert sums[:, :, 0].tolist() == [[2, 1, 0], [0, 1, 2]]
    assert sums[:, :, 4].tolist() == [[2, 0, 0], [0, 1, 2]]
    for average, expected in (
        ("sample", [[0.75, math.nan, math.nan], [math.nan, -0.5, 0.5]]),
        ("class", [[2.5 / 3, math.nan, math.nan], [math.nan, -0.5, 0.2]]),
    ):
        np.testing.assert_allclose(class_loss_variation(sums, average), expected)


def test_half_precision_and_large_losses():
    plain = torch.tensor([1e4, 2e4], dtype=torch.bfloat16)
    sums = loss_variation_sums(torch.tensor([0, 0]), plain * 2, plain, 2)
    assert class_loss_variation(sums)[0, 0] == 1.0
    assert loss_variation_sums(torch.empty(0, dtype=torch.int64), torch.empty(0), torch.empty(0), 2).sum() == 0


def test_bad_input():
    two = torch.ones(2)
    with pytest.raises(ValueError, match=r"perturbed of shape \(3,\) and plain of shape \(2,\)"):
        relative_loss_variation(torch.ones(3), two)
    with pytest.raises(ValueError, match="smallest=-1"):
        relative_loss_variation(two, two, smallest=-1.0)
    with pytest.raises(ValueError, match=r"target of shape \(3,\) does not fit losses of shape \(2,\)"):
        loss_variation_sums(torch.zeros(3, dtype=torch.int64), two, two, 4)
    with pytest.raises(ValueError, match=r"target of shape \(2, 3\).*num_classes=4"):
        loss_variation_sums(torch.zeros(2, 3), two, two, 4)
    with pytest.raises(ValueError, match=r"target of shape \(2,\) does not fit losses of shape \(2, 4\)"):
        loss_variation_sums(torch.zeros(2, dtype=torch.int64), torch.ones(2, 4), torch.ones(2, 4), 4)
    with pytest.raises(ValueError, match="average='mean' is unknown"):
        class_loss_variation(torch.ones(1, 3, 5), "mean")
    with pytest.raises(ValueError, match="none of loss_variation_sums"):
        class_loss_variation(torch.ones(1, 3, 4))
