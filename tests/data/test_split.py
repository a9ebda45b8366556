import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_perturb.data.labels import check_labels, choose_per_class, count_classes
from lightning_perturb.data.split import balanced_meta_split, stratified_split


def rng(seed=0):
    return np.random.default_rng(seed)


def assert_partition(rest, held, number):
    for part in (rest, held):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert sorted([*rest, *held]) == list(range(number))


LABELS = st.lists(st.integers(0, 4), min_size=0, max_size=120)


@settings(deadline=None, max_examples=100)
@given(labels=LABELS, seed=st.integers(0, 2**32), size=st.integers(0, 120))
def test_stratified_split_is_a_proportional_partition(labels, seed, size):
    labels = np.array(labels, dtype=int)
    available = np.array([(labels == c).sum() for c in range(5)])
    assume(size <= sum(max(n - 1, 0) for n in available))
    before = labels.copy()
    rest, held = stratified_split(labels, 5, size, rng(seed))
    assert_partition(rest, held, len(labels))
    np.testing.assert_array_equal(labels, before)
    assert len(held) == size
    for c, n in enumerate(available):
        taken = (labels[held] == c).sum()
        assert taken <= max(n - 1, 0)
        # full classes push their part onto others, so only the lower bound is strict
        assert taken >= min(np.floor(size * n / max(len(labels), 1)), max(n - 1, 0))
    again = stratified_split(labels, 5, size, rng(seed))
    np.testing.assert_array_equal(again[1], held)


def test_stratified_split_rounds_to_the_largest_remainder():
    labels = np.repeat([0, 1, 2], [50, 33, 17])
    # exact shares of 10: 5.0, 3.3, 1.7
    _, held = stratified_split(labels, 3, 10, rng())
    assert np.bincount(labels[held]).tolist() == [5, 3, 2]
    _, held = stratified_split(labels, 3, 0.1, rng())
    assert len(held) == 10


def test_stratified_split_draws_and_draws_anew():
    labels = np.zeros(200, dtype=int)
    a, b = (stratified_split(labels, 1, 100, rng(seed))[1] for seed in (0, 1))
    assert (a != b).any()
    # every sample is as likely to be held out: 40 draws of half, none always or never
    counts = sum(np.bincount(stratified_split(labels, 1, 100, rng(seed))[1], minlength=200) for seed in range(40))
    assert counts.min() > 4
    assert counts.max() < 36


def test_a_whole_float_is_a_count():
    labels = np.arange(20) % 2
    assert len(stratified_split(labels, 2, 4.0, rng())[1]) == 4
    assert len(stratified_split(labels, 2, 1, rng())[1]) == 1
    for size in (0, 0.0):
        rest, held = stratified_split(labels, 2, size, rng())
        assert (len(rest), len(held)) == (20, 0)


@pytest.mark.parametrize("size", [-1, -0.5, 1.0, 2.5, float("nan"), float("inf")])
def test_sizes_without_meaning_are_named(size):
    with pytest.raises(ValueError, match=rf"size={size!r} is neither a share below 1 nor a whole number"):
        stratified_split(np.arange(4) % 2, 2, size, rng())


def test_stratified_split_leaves_no_class_empty():
    labels = np.array([0, 0, 0, 0, 1])
    rest, held = stratified_split(labels, 2, 3, rng())
    assert labels[rest].tolist() == [0, 1]
    assert labels[held].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"size=4 holds out 4 of 5 .* Hold out at most 3"):
        stratified_split(labels, 2, 4, rng())


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(4, 30), min_size=1, max_size=5), meta=st.integers(0, 15), seed=st.integers(0, 2**32))
def test_meta_split_is_a_balanced_partition(sizes, meta, seed):
    classes = len(sizes)
    assume(meta <= 3 * classes)
    labels = rng(seed).permutation(np.repeat(np.arange(classes), sizes))
    rest, held = balanced_meta_split(labels, classes, meta, rng(seed))
    assert_partition(rest, held, len(labels))
    counts = [int((labels[held] == c).sum()) for c in range(classes)]
    # dealt out one after another, starting with the first class
    expected = [len(range(c, meta, classes)) for c in range(classes)]
    assert counts == expected
    np.testing.assert_array_equal(held, balanced_meta_split(labels, classes, meta, rng(seed))[1])


def test_meta_split_of_cifar_sizes():
    labels = np.repeat(np.arange(10), 5000)
    rest, meta = balanced_meta_split(labels, 10, 1000, rng())
    assert count_classes(labels[meta], 10).tolist() == [100] * 10
    assert count_classes(labels[rest], 10).tolist() == [4900] * 10


def test_meta_faults_are_named():
    labels = np.repeat([0, 1, 2], [9, 4, 9])
    with pytest.raises(ValueError, match=r"meta_size=15 asks for 5 samples of class 1, which has only 4. .*at most 9"):
        balanced_meta_split(labels, 3, 15, rng())
    with pytest.raises(ValueError, match=r"meta_size=12 asks for 4 samples of class 1, .* no training sample left"):
        balanced_meta_split(labels, 3, 12, rng())
    assert len(balanced_meta_split(labels, 3, 9, rng())[1]) == 9
    with pytest.raises(ValueError, match=r"class 3, which has only 0"):
        balanced_meta_split(labels, 4, 4, rng())
    with pytest.raises(ValueError, match="meta_size=-1 is negative"):
        balanced_meta_split(labels, 3, -1, rng())
    with pytest.raises(ValueError, match=r"labels\[13\]=2 is outside 0..1"):
        balanced_meta_split(labels, 2, 2, rng())


def test_check_labels_takes_what_holds_whole_numbers():
    for labels in ([0, 1], (True, False), np.array([0, 1], dtype=np.uint8), np.empty(0)):
        assert check_labels(labels, 2).dtype == np.int64
    with pytest.raises(ValueError, match=r"y\[1\]=2 is outside 0..1 \(2 such labels\). Set num_classes=2"):
        check_labels([0, 2, 5], 2, "y")


@settings(deadline=None, max_examples=50)
@given(labels=LABELS, seed=st.integers(0, 2**32), data=st.data())
def test_more_per_class_chooses_a_superset(labels, seed, data):
    labels = np.array(labels, dtype=np.int64)
    few = np.array(data.draw(st.lists(st.integers(0, 10), min_size=5, max_size=5)))
    many = few + data.draw(st.integers(0, 5))
    a, b = choose_per_class(labels, few, rng(seed)), choose_per_class(labels, many, rng(seed))
    assert not (a & ~b).any()
    for c in range(5):
        assert a[labels == c].sum() == min(few[c], (labels == c).sum())


# --- multi-hot labels ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), samples=st.integers(1, 80), share=st.floats(0.05, 0.9), density=st.floats(0.05, 0.6))
def test_several_labels_are_split_into_a_partition_that_leaves_every_class_a_sample(seed, samples, share, density):
    labels = (rng(seed).random((samples, 6)) < density * np.linspace(1, 0.1, 6)).astype(np.int64)
    size, before = int(share * samples), labels.copy()
    # beyond it, rows may be so few that each is the last of a class
    assume(size <= (samples - 2 * (labels.sum(0) > 0).sum()) / 2)
    rest, held = stratified_split(labels, 6, size, rng(seed))
    assert_partition(rest, held, samples)
    np.testing.assert_array_equal(labels, before)
    assert len(held) == size
    assert (labels[rest].sum(0)[labels.sum(0) > 0] > 0).all()
    np.testing.assert_array_equal(stratified_split(labels, 6, size, rng(seed))[1], held)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_several_labels_are_split_in_proportion(share):
    labels = (rng(3).random((1142, 20)) < 0.4 * np.linspace(1, 0.02, 20) ** 2).astype(np.int64)
    _, held = stratified_split(labels, 20, share, rng())
    wanted = len(held) * labels.mean(0)
    mine = np.abs(labels[held].sum(0) - wanted)
    draws = [np.abs(labels[rng(seed).permutation(1142)[: len(held)]].sum(0) - wanted).mean() for seed in range(20)]
    assert mine.mean() < min(draws) / 2, "no better than a plain draw"
    assert (stratified_split(labels, 20, share, rng(1))[1] != held).any()


def test_several_labels_that_cannot_be_held_out():
    with pytest.raises(ValueError, match=r"size=2 of 3 samples cannot be held out .* at most 0"):
        stratified_split(np.eye(3, dtype=int), 3, 2, rng())
    rest, _held = stratified_split(np.eye(3, dtype=int)[[0, 0, 1, 1, 2, 2]], 3, 3, rng())
    assert np.eye(3)[[0, 0, 1, 1, 2, 2]][rest].sum(0).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"labels has shape \(3, 3\).*\[N, 4\]"):
        stratified_split(np.eye(3, dtype=int), 4, 1, rng())
