"""Noise on labels that name any number of classes."""

import numpy as np
import pytest

from lightning_perturb.data import Chain, FalsePositives, MissingLabels, MultiLabelSymmetric, PairFlip, Symmetric
from lightning_perturb.data.label_noise import noise_rate, realized_entry_matrices

EVERY = [MultiLabelSymmetric, MissingLabels, FalsePositives]


def rng(seed=0):
    return np.random.default_rng(seed)


def labels(samples=4000, classes=6, seed=1):
    return (rng(seed).random((samples, classes)) < 0.3).astype(np.int64)


@pytest.mark.parametrize("cls", EVERY)
def test_is_a_function_of_its_arguments_and_leaves_them_alone(cls):
    y = labels()
    before = y.copy()
    given = cls(0.3)(y, 6, rng(7))
    assert given.dtype == np.int64
    assert set(np.unique(given)) == {0, 1}
    np.testing.assert_array_equal(y, before)
    np.testing.assert_array_equal(given, cls(0.3)(y.astype(bool), 6, rng(7)))
    assert (given != cls(0.3)(y, 6, rng(8))).any()
    np.testing.assert_array_equal(cls(0.0)(y, 6, rng()), y)
    assert cls(0.3)(y[:0], 6, rng()).shape == (0, 6)


@pytest.mark.parametrize(
    ("cls", "missing", "added"),
    [(MultiLabelSymmetric, 0.3, 0.3), (MissingLabels, 0.3, 0.0), (FalsePositives, 0.0, 0.3)],
)
def test_rates_of_each_entry(cls, missing, added):
    y = labels()
    given = cls(0.3)(y, 6, rng())
    for c in range(6):
        positive = y[:, c] == 1
        for share, rate, count in (
            ((given[positive, c] == 0).mean(), missing, positive.sum()),
            ((given[~positive, c] == 1).mean(), added, (~positive).sum()),
        ):
            assert abs(share - rate) <= 4.5 * np.sqrt(rate * (1 - rate) / count)
    assert noise_rate(y, given) == (y != given).mean()
    matrices = realized_entry_matrices(y, given, 6)
    np.testing.assert_allclose(matrices.sum(2), 1)
    assert matrices[2, 1, 0] == pytest.approx((given[y[:, 2] == 1, 2] == 0).mean())
    assert matrices[2, 0, 1] == pytest.approx((given[y[:, 2] == 0, 2] == 1).mean())


def test_rate_one():
    y = labels(50)
    np.testing.assert_array_equal(MultiLabelSymmetric(1)(y, 6, rng()), 1 - y)
    assert not MissingLabels(1)(y, 6, rng()).any()
    assert FalsePositives(1)(y, 6, rng()).all()


@pytest.mark.parametrize("cls", EVERY)
def test_more_noise_flips_more_of_the_same(cls):
    y = labels()
    few, many = (cls(rate)(y, 6, rng(3)) != y for rate in (0.1, 0.4))
    assert (many | ~few).all()
    assert many.sum() > few.sum()


def test_entries_are_flipped_by_themselves():
    given = MultiLabelSymmetric(0.5)(np.zeros((4000, 2), dtype=int), 2, rng())
    assert abs(np.corrcoef(given.T)[0, 1]) < 0.08


def test_chains_keep_to_one_kind():
    y = labels()
    both = Chain([MissingLabels(1.0), FalsePositives(1.0)])
    assert both.multi_label
    assert both(y, 6, rng()).all()
    with pytest.raises(ValueError, match=r"noises mixes MissingLabels .* with PairFlip"):
        Chain([PairFlip(0.1), MissingLabels(0.1)])


def test_what_does_not_fit_is_named():
    y = labels(5)
    with pytest.raises(ValueError, match=r"Symmetric turns a class .* Choose MultiLabelSymmetric, MissingLabels or"):
        Symmetric(0.1)(y, 6, rng())
    with pytest.raises(ValueError, match="MissingLabels is for multi-hot labels, but these are class ids"):
        MissingLabels(0.1)(np.zeros(5, dtype=int), 6, rng())
    with pytest.raises(ValueError, match=r"labels has shape \(5, 6\).*shape \[N, 7\]"):
        MissingLabels(0.1)(y, 7, rng())
    with pytest.raises(ValueError, match=r"labels\[1, 2\]=3 is neither 0 nor 1 \(1 such"):
        FalsePositives(0.1)(np.where(np.arange(30).reshape(5, 6) == 8, 3, y), 6, rng())
    with pytest.raises(ValueError, match="index has 2 entries for 5 labels"):
        MissingLabels(0.1)(y, 6, rng(), index=np.arange(2))
    for cls in EVERY:
        with pytest.raises(ValueError, match=r"rate=1.5 is not a share"):
            cls(1.5)
