import math

import numpy as np
import pytest
import torch

from lightning_perturb.functional import local_dimensionality, paced_trust, turns


def by_hand(x, k):
    found = []
    for i in range(len(x)):
        distances = sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[:k]
        found.append(-1 / np.mean([math.log(r / distances[-1]) for r in distances]))
    return found


def test_the_estimate():
    x = np.random.default_rng(0).normal(size=(15, 4))
    np.testing.assert_allclose(local_dimensionality(torch.from_numpy(x), 5).numpy(), by_hand(x, 5))
    # all others where there are less
    np.testing.assert_allclose(local_dimensionality(torch.from_numpy(x), 20).numpy(), by_hand(x, 14))


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_it_finds_the_dimension_of_a_flat_set_in_a_larger_space(dimension):
    generator = np.random.default_rng(1)
    flat = generator.uniform(size=(2000, dimension)) @ generator.normal(size=(dimension, 12))
    assert float(local_dimensionality(torch.from_numpy(flat)).mean()) == pytest.approx(dimension, rel=0.15)


def test_edge_cases():
    same = torch.zeros(6, 3)
    assert local_dimensionality(same, 3).isnan().all()
    corners = torch.eye(4)
    assert local_dimensionality(corners, 3).isinf().all()
    assert local_dimensionality(torch.rand(2, 3)).isnan().all()
    assert local_dimensionality(torch.rand(0, 3)).shape == (0,)
    # a copy counts as 1e-8 of the largest distance
    pair = torch.tensor([[0.0], [0.0], [1.0], [3.0]])
    assert local_dimensionality(pair, 3)[0].item() == pytest.approx(-3 / (math.log(1e-8) + math.log(1 / 3)))
    half = local_dimensionality(torch.rand(9, 3).bfloat16().requires_grad_(), 4)
    assert half.dtype == torch.float64
    assert not half.requires_grad


def test_the_turn_is_two_deviations_above_the_mean():
    history = torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    limit = 2 + 2 * math.sqrt(0.5)
    assert turns(history, limit + 1e-9)
    assert not turns(history, limit - 1e-9)


def test_the_trust_falls_with_progress_and_growth():
    assert paced_trust(0.0, 5.0, 2.0) == 1
    assert paced_trust(0.5, 6.0, 2.0) == pytest.approx(math.exp(-1.5))
    assert paced_trust(0.5, 2.0, 2.0) > paced_trust(0.5, 3.0, 2.0) > paced_trust(0.6, 3.0, 2.0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: local_dimensionality(torch.rand(5, 2), 1), "neighbours=1"),
        (lambda: local_dimensionality(torch.rand(5)), "features have the shape"),
        (lambda: paced_trust(-0.1, 1.0, 1.0), r"progress=-0\.1"),
        (lambda: paced_trust(0.1, 0.0, 1.0), r"dimension=0\.0"),
        (lambda: paced_trust(0.1, 1.0, math.inf), "lowest=inf"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
