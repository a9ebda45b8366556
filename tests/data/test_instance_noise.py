import numpy as np
import pytest

from lightning_perturb.data.label_noise import InstancePerClass, InstanceShared, realized_transition_matrix
from lightning_perturb.data.label_noise.instance import _pixel_statistics

SEEDED = pytest.mark.parametrize("seed", [0, 1, 2])


def rng(seed=0):
    return np.random.default_rng(seed)


def images(number, seed=5):
    return rng(seed).integers(0, 256, size=(number, 4, 4, 3), dtype=np.uint8)


def reference_instance(cls, labels, classes, x, rate, std, normalize, seed):
    """Sample by sample, over the same stream of draws: flip probabilities, uniforms, projections."""
    generator, n = rng(seed), len(labels)
    q = generator.normal(rate, std, size=n)
    while ((q < 0) | (q > 1)).any():
        for i in np.flatnonzero((q < 0) | (q > 1)):
            q[i] = generator.normal(rate, std)
    u = generator.random(n)
    shape = (x[0].size, classes)
    w = [generator.standard_normal(shape) for _ in range(classes if cls is InstancePerClass else 1)]
    flat = x.reshape(n, -1).astype(float)
    if normalize:
        deviation = flat.std(axis=0)
        flat = (flat - flat.mean(axis=0)) / np.where(deviation == 0, 1, deviation)
    given = []
    for i, y in enumerate(labels):
        a = flat[i] @ w[y if cls is InstancePerClass else 0]
        a[y] = -np.inf
        e = np.exp(a - a.max())
        # flipped classes first, what is left of the unit interval keeps the label
        cumulated = q[i] * np.cumsum(e / e.sum())
        hit = np.flatnonzero(u[i] < cumulated - 1e-15)
        given.append(hit[0] if u[i] < q[i] and hit.size else y)
    return np.array(given)


@SEEDED
@pytest.mark.parametrize("cls", [InstanceShared, InstancePerClass])
@pytest.mark.parametrize("normalize", [False, True])
def test_instance_noise_equals_a_loop_over_samples(cls, normalize, seed):
    labels = rng(seed).integers(0, 5, size=300)
    x = images(300)
    x[:, 0, 0, 0] = 7  # a constant pixel must not divide by zero
    drawn = cls(0.15, std=0.2, normalize=normalize)(labels, 5, rng(seed), x)
    np.testing.assert_array_equal(drawn, reference_instance(cls, labels, 5, x, 0.15, 0.2, normalize, seed))


@SEEDED
@pytest.mark.parametrize("cls", [InstanceShared, InstancePerClass])
@pytest.mark.parametrize("rate", [0.2, 0.4, 0.6])
def test_instance_noise_realizes_its_rate(cls, rate, seed):
    labels = rng(seed).integers(0, 10, size=10_000)
    wrong = cls(rate)(labels, 10, rng(seed), images(10_000)) != labels
    # truncation moves the mean of the flip probability by less than .006 at these rates
    assert abs(wrong.mean() - rate) < 0.006 + 4.5 * np.sqrt(rate * (1 - rate) / 10_000)


def test_flip_probabilities_are_a_truncated_normal():
    # mean of N(m, s²) truncated to [0, 1] by numerical integration
    grid = np.linspace(0, 1, 200_001)
    for rate, std in ((0.05, 0.1), (0.5, 0.3), (0.95, 1.0)):
        density = np.exp(-0.5 * ((grid - rate) / std) ** 2)
        mean = (grid * density).sum() / density.sum()
        drawn = InstanceShared(rate, std)._flip_probabilities(100_000, rng())
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        assert abs(drawn.mean() - mean) < 5 * drawn.std() / np.sqrt(100_000)
    assert (InstanceShared(0.3, std=0.0)._flip_probabilities(9, rng()) == 0.3).all()


def test_raw_pixels_send_flips_to_one_class_and_standardised_ones_do_not():
    # bright and dark images alike but for their brightness, as natural images are
    x = np.clip(rng(1).normal(size=(4000, 1, 1, 1)) * 40 + rng(2).normal(size=(4000, 8, 8, 3)) * 20 + 120, 0, 255)
    labels = rng(3).integers(0, 10, size=4000)

    def largest_share(normalize):
        drawn = InstanceShared(0.6, normalize=normalize)(labels, 10, rng(4), x.astype(np.uint8))
        matrix = realized_transition_matrix(labels, drawn, 10)
        np.fill_diagonal(matrix, 0)
        return (matrix.max(axis=1) / matrix.sum(axis=1)).mean()

    assert largest_share(False) > 0.8
    assert largest_share(True) < 0.6


def test_instance_noise_takes_features_and_extreme_values():
    labels = np.arange(6) % 3
    for x in (
        np.full((6, 2), 1e4),
        np.full((6, 2), -1e4),
        np.zeros((6, 2)),
        rng().normal(size=(6, 2)).astype(np.float32),
    ):
        assert (InstanceShared(1.0, normalize=True)(labels, 3, rng(), x) != labels).all()
    with pytest.raises(ValueError, match="not finite"):
        InstanceShared(1.0)(labels, 3, rng(), np.full((6, 2), np.nan))


def test_pixel_statistics_over_several_chunks():
    x = rng().integers(0, 256, size=(5000, 3), dtype=np.uint8)
    mean, deviation = _pixel_statistics(x)
    np.testing.assert_allclose(mean, x.astype(float).mean(axis=0))
    np.testing.assert_allclose(deviation, x.astype(float).std(axis=0))
