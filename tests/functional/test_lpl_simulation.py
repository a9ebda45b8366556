import pytest
import torch

from lightning_perturb.functional import (
    imbalance_errors,
    mixed_imbalance_errors,
    simulated_errors,
    variance_imbalance_errors,
)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("rho", [0.0, 2.0, 4.0])
def test_theorems_1_and_2(rho):
    first = simulated_errors(0.2, 0.2 * rho, 2.0, generator=seeded())
    assert first == pytest.approx(imbalance_errors(rho), abs=5e-3)
    second = simulated_errors(-0.2 * rho, 0.2, 2.0, generator=seeded())
    assert second == pytest.approx(mixed_imbalance_errors(rho), abs=5e-3)


def test_theorem_1_in_other_dimensions():
    found = simulated_errors(0.2, 0.4, 3.0, d=5, eta=0.4, sigma=0.8, generator=seeded())
    assert found == pytest.approx(imbalance_errors(2.0, 3.0, 5, 0.4, 0.2, 0.8), abs=5e-3)


@pytest.mark.parametrize(
    ("plus", "minus", "K", "gamma", "eps"), [(0, 1, 3, 3.5, 0.1), (9, 1, 3, 3.5, 0.1), (1, 4, 2.5, 1.1, 0.2)]
)
def test_theorem_3(plus, minus, K, gamma, eps):
    found = simulated_errors(minus * eps, plus * eps, gamma, K=K, generator=seeded())
    assert found == pytest.approx(variance_imbalance_errors(plus, minus, K, gamma, eps=eps), abs=8e-3)


def test_the_same_generator_draws_the_same():
    assert simulated_errors(0.2, 0.2, 2.0, samples=2000, generator=seeded()) == simulated_errors(
        0.2, 0.2, 2.0, samples=2000, generator=seeded()
    )


def test_separable_classes_and_bad_input():
    # the smoothed minimum may cost up to a hundredth
    assert max(simulated_errors(0.0, 0.0, 2.0, sigma=1e-3, samples=1000, generator=seeded())) < 0.01
    with pytest.raises(ValueError, match="past each other"):
        simulated_errors(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="samples=10 "):
        simulated_errors(0.2, 0.2, 2.0, samples=10)
    with pytest.raises(ValueError, match="K=0"):
        simulated_errors(0.2, 0.2, 2.0, K=0)
