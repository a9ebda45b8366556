"""The embedded digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_perturb.data import Digits, Symmetric


@pytest.fixture(scope="module")
def digits():
    data = Digits(label_noise=Symmetric(0.4))
    data.setup()
    return data


def test_shapes_sizes_and_classes(digits):
    train, test = digits.read("train"), digits.read("test")
    assert train[0].shape == (1348, 1, 8, 8)
    assert test[0].shape == (449, 1, 8, 8)
    assert train[0].dtype == torch.uint8
    assert digits.num_classes == 10
    assert digits.class_names == [str(digit) for digit in range(10)]
    assert digits.read("val") is None
    assert digits.val_dataloader() == []


def test_train_and_test_share_the_published_images(digits):
    pixels, labels = load_digits(return_X_y=True)
    rows = [
        (tuple(x.flatten().tolist()), int(y))
        for split in ("train", "test")
        for x, y in zip(*digits.read(split), strict=True)
    ]
    # sixteen steps of grey become 0..255
    expected = [(tuple(int(v * 255 / 16 + 0.5) for v in x), int(y)) for x, y in zip(pixels, labels, strict=True)]
    assert sorted(rows) == sorted(expected)


def test_the_test_split_is_stratified_and_the_same_for_every_seed(digits):
    other = Digits(seed=5, label_noise=Symmetric(0.2))
    other.setup()
    assert torch.equal(other._test[0], digits._test[0])
    assert np.array_equal(other._test[1], digits._test[1])
    counts = np.bincount(digits._test[1])
    assert np.abs(counts - np.bincount(load_digits(return_X_y=True)[1]) / 4).max() < 1


def test_mean_and_std_are_those_of_the_pixels(digits):
    pixels = digits.read("train")[0].double() / 255
    assert digits.mean[0] == pytest.approx(float(pixels.mean()), abs=2e-3)
    assert digits.std[0] == pytest.approx(float(pixels.std()), abs=2e-3)


def test_nothing_is_augmented_unless_asked():
    assert Digits().augment is None


def test_test_size_as_count_and_its_errors():
    data = Digits(test_size=300)
    assert len(data.read("test")[1]) == 300
    assert len(data.read("train")[1]) == 1497
    with pytest.raises(ValueError, match=r"test_size=0 must be"):
        Digits(test_size=0)
    with pytest.raises(ValueError, match=r"test_size: size=1797 .* Hold out at most 1787"):
        Digits(test_size=1797).setup()
