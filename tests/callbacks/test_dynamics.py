import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightning_perturb.callbacks import (
    area_under_margin,
    dynamics,
    forgetting,
    memorised,
    suggested_labels,
    suspect_scores,
)

NAN = math.nan


def test_area_under_margin_ignores_what_was_not_seen():
    margins = np.array([[1, NAN, NAN], [3, -2, NAN], [NAN, 4, NAN]], dtype=np.float16)
    np.testing.assert_array_equal(area_under_margin(margins), [2, 1, NAN])


def test_area_under_margin_does_not_add_up_in_half_precision():
    # 2048 + 1 is 2048 in float16
    margins = np.full((5000, 2), 1.0, dtype=np.float16)
    np.testing.assert_array_equal(area_under_margin(margins), [1, 1])


def test_forgetting_by_hand():
    label = np.array([1, 1, 1, 1, 1])
    predictions = np.array(
        [
            # learnt for good, forgotten twice, never learnt, forgotten over a gap, never seen
            [0, 1, 0, 1, -1],
            [1, 0, 2, -1, -1],
            [1, 1, 0, 0, -1],
            [1, 0, 2, 1, -1],
        ]
    )
    np.testing.assert_array_equal(forgetting(predictions, label), [0, 2, np.inf, 1, NAN])


tables = hnp.arrays(np.int16, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(-1, 3))


@settings(deadline=None, max_examples=60)
@given(tables, st.integers(0, 3))
def test_forgetting_sample_by_sample(predictions, label):
    labels = np.full(predictions.shape[1], label)
    found = forgetting(predictions, labels)
    for column, value in zip(predictions.T, found, strict=True):
        right = [p == label for p in column if p >= 0]
        if not right:
            assert math.isnan(value)
        elif not any(right):
            assert value == math.inf
        else:
            assert value == sum(a and not b for a, b in itertools.pairwise(right))


@settings(deadline=None, max_examples=60)
@given(tables, st.integers(0, 3), st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([1, 1 << 24]))
def test_suggested_label_is_the_most_frequent_prediction(predictions, label, part, at_once):
    dynamics._VOTES_AT_ONCE, kept = at_once, dynamics._VOTES_AT_ONCE
    try:
        found = suggested_labels(predictions, np.full(predictions.shape[1], label), part)
    finally:
        dynamics._VOTES_AT_ONCE = kept
    looked = predictions[: max(1, math.ceil(part * len(predictions)))]
    for column, value in zip(looked.T, found, strict=True):
        votes = [int((column == c).sum()) for c in range(4)]
        best = [c for c in range(4) if votes[c] == max(votes)]
        expected = label if max(votes) == 0 or label in best else best[0]
        assert value == expected


def test_suggested_label_of_samples_without_label():
    np.testing.assert_array_equal(suggested_labels(np.array([[-1, 2]]), np.array([-1, 0])), [-1, 2])


def test_memorised():
    prediction, label = np.array([1, 1, 2, -1, 0]), np.array([1, 0, 2, 3, 1])
    assert memorised(prediction, label, np.array([True, True, True, True, False])) == pytest.approx(2 / 3)
    assert math.isnan(memorised(prediction, label, np.array([False, False, False, True, False])))
    assert math.isnan(memorised(prediction, label, np.zeros(5, dtype=bool)))


def test_suspect_scores_look_at_the_first_part():
    margins = np.array([[-1.0, 2.0], [-3.0, 2.0], [9.0, -9.0]])
    np.testing.assert_array_equal(suspect_scores(margins, part=0.5), [2, -2])
    np.testing.assert_array_equal(suspect_scores(margins, part=0.01), [1, -2])
    np.testing.assert_allclose(suspect_scores(margins, part=1.0), [-5 / 3, 5 / 3])


@pytest.mark.parametrize("part", [0.0, -0.1, 1.01, NAN])
def test_part_out_of_range(part):
    with pytest.raises(ValueError, match="part="):
        suspect_scores(np.zeros((2, 2)), part)
    with pytest.raises(ValueError, match="part="):
        suggested_labels(np.zeros((2, 2), dtype=int), np.zeros(2, dtype=int), part)
