"""The biased two-Gaussian toy."""

import numpy as np
import pytest
import torch
from testkit.training import trainer_of

from lightning_perturb.data import PairFlip, Step, TwoGaussians
from lightning_perturb.methods import MetaMixPert
from lightning_perturb.nets import MLP

MULTIPLES = {1: 1.0, 2: 2.5, 3: -1.0, 4: -2.5}


def test_the_papers_values():
    data = TwoGaussians()
    data.setup()
    x, y = data.read("train")
    assert x.shape == (620, 2)
    assert x.dtype == torch.float32
    assert (data.num_classes, data.class_names) == (2, ["-1", "+1"])
    parts = data.parts("train")
    assert np.bincount(parts).tolist() == [0, 300, 10, 10, 300]
    np.testing.assert_array_equal(y, parts <= 2)
    for part, multiple in MULTIPLES.items():
        mine = x[torch.from_numpy(parts == part)].double()
        assert mine.mean(0).numpy() == pytest.approx([0.5 * multiple] * 2, abs=4 * 0.2 / len(mine) ** 0.5)
    assert x[torch.from_numpy(parts == 1)].std(0).numpy() == pytest.approx([0.2, 0.2], abs=0.03)
    assert data.val_dataloader() == []
    assert data.has_test
    assert data.facts.mean is None


def test_the_test_split_has_no_bias():
    data = TwoGaussians(test_samples=400, sigma_minus=0.7)
    x, y = data.read("test")
    parts = data.parts("test")
    assert np.bincount(parts).tolist() == [0, 100, 100, 100, 100]
    assert np.bincount(y).tolist() == [200, 200]
    assert x[torch.from_numpy(parts == 4)].std(0).numpy() == pytest.approx([0.7, 0.7], abs=0.15)
    assert x[torch.from_numpy(parts == 2)].std(0).numpy() == pytest.approx([0.2, 0.2], abs=0.05)


def test_drawn_once_from_its_own_seed():
    first, second, other = TwoGaussians(seed=0), TwoGaussians(seed=1), TwoGaussians(draw_seed=2)
    for split in ("train", "test"):
        assert torch.equal(first.read(split)[0], second.read(split)[0])
        assert torch.equal(first.read(split)[0], first.read(split)[0])
        assert not torch.equal(first.read(split)[0], other.read(split)[0])
    assert torch.equal(first.read("test")[0], TwoGaussians(samples=100).read("test")[0])


@pytest.mark.parametrize("d", [1, 5])
def test_other_sizes_and_dimensions(d):
    data = TwoGaussians(samples=7, test_samples=3, d=d, ratio=1.0)
    x, y = data.read("train")
    assert x.shape == (7, d)
    assert np.bincount(y).tolist() == [4, 3]


def test_moving_14_of_30_undoes_the_bias():
    plain, moved = TwoGaussians(), TwoGaussians(moved=14 / 30)
    before, after = plain.read("train")[0], moved.read("train")[0]
    np.testing.assert_array_equal(plain.parts("train"), moved.parts("train"))
    shift = (after - before).numpy()
    parts = plain.parts("train")
    for part, number in ((1, 140), (2, 0), (3, 0), (4, 140)):
        mine = shift[parts == part]
        changed = mine[np.abs(mine).max(axis=1) > 0]
        assert len(changed) == number
        np.testing.assert_allclose(changed, 0.75, atol=1e-6)
    # near and far parts of a class are then 160 to 150 and the reverse
    near = np.abs(after.numpy().sum(axis=1)) < 1.75
    assert near[parts <= 2].sum() == pytest.approx(160, abs=3)
    assert near[parts > 2].sum() == pytest.approx(150, abs=3)
    assert torch.equal(plain.read("test")[0], moved.read("test")[0])


def test_splits_imbalance_and_noise_of_the_base():
    data = TwoGaussians(val_size=60, meta_size=20, imbalance=Step(10), label_noise=PairFlip(0.2))
    data.setup()
    assert (len(data.val_index), len(data.meta_index)) == (60, 20)
    assert np.bincount(data.true_labels[data.meta_index]).tolist() == [10, 10]
    counts = np.bincount(data.true_labels[data.train_index])
    assert counts.max() / counts.min() == pytest.approx(10, rel=0.1)
    assert data.noise_rate == pytest.approx(0.2, abs=0.05)


def test_a_meta_method_trains():
    data = TwoGaussians(samples=124, meta_size=20)
    method = MetaMixPert(net=MLP(2, 2, ()), num_classes=2)
    trainer_of(max_epochs=1).fit(method, datamodule=data)
    assert all(torch.isfinite(weight).all() for weight in method.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 1}, "samples=1 "),
        ({"test_samples": 0}, "test_samples=0 "),
        ({"ratio": 0.5}, "ratio=0.5"),
        ({"ratio": float("inf")}, "ratio=inf"),
        ({"far": 1.0}, "far=1.0"),
        ({"moved": 1.5}, "moved=1.5"),
        ({"sigma_minus": 0.0}, "sigma_minus=0.0"),
        ({"d": 0}, "d=0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TwoGaussians(**arguments)
