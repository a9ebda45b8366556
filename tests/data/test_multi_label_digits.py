"""Several digits on a canvas."""

import collections

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_perturb.data import MissingLabels, MultiLabelDigits


@pytest.fixture(scope="module")
def canvases():
    data = MultiLabelDigits(samples=300, val_samples=60, test_samples=80, ratio=20)
    data.setup()
    return data


def digits_on(canvas: np.ndarray, published: dict) -> list[tuple]:
    """The published images that a canvas holds, found by sliding over its quarters."""
    found = []
    for top in (0, 10):
        for left in (0, 10):
            quarter = canvas[top : top + 10, left : left + 10]
            if not quarter.any():
                continue
            here = {
                tuple(quarter[i : i + 8, j : j + 8].flatten().tolist())
                for i in range(3)
                for j in range(3)
                if quarter[i : i + 8, j : j + 8].sum() == quarter.sum()
            }
            (image,) = {image for image in here if image in published}
            found.append(image)
    return found


def test_labels_are_the_digits_on_the_canvas_and_no_image_is_in_two_splits(canvases):
    images, digits = load_digits(return_X_y=True)
    published = {tuple(int(v * 255 / 16 + 0.5) for v in x): int(y) for x, y in zip(images, digits, strict=True)}
    used = {}
    for split, size in (("train", 300), ("val", 60), ("test", 80)):
        x, y = canvases.read(split)
        assert x.shape == (size, 1, 20, 20)
        assert x.dtype == torch.uint8
        assert y.shape == (size, 10)
        used[split] = set()
        for canvas, row in zip(x[:, 0].numpy(), y, strict=True):
            found = digits_on(canvas, published)
            used[split].update(found)
            assert sorted(published[image] for image in found) == np.flatnonzero(row).tolist()
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]
    assert not used["val"] & used["test"]


def test_the_tail_is_in_training_alone_and_not_in_the_order_of_the_digits():
    data = MultiLabelDigits()
    data.setup("fit")
    counts = data.class_counts
    assert counts.max() / counts.min() > 30
    assert counts.max() >= 100 > 20 > counts.min(), "head, medium and tail occur"
    assert (np.diff(counts) > 0).any()
    assert (np.diff(counts) < 0).any()
    for split in ("val", "test"):
        flat = data.read(split)[1].sum(0)
        assert flat.max() / flat.min() < 2
    assert MultiLabelDigits(ratio=1).read("train")[1].sum(0).min() > 200


def test_how_many_digits():
    number = collections.Counter(MultiLabelDigits(samples=2000, ratio=2).read("train")[1].sum(1).tolist())
    assert set(number) == {1, 2, 3, 4}
    assert min(number.values()) > 430
    assert set(MultiLabelDigits(most=2).read("test")[1].sum(1).tolist()) == {1, 2}


def test_everything_comes_from_the_canvas_seed():
    one, two, other = MultiLabelDigits(seed=0), MultiLabelDigits(seed=5), MultiLabelDigits(canvas_seed=3)
    for split in ("train", "val", "test"):
        a, b, c = (data.read(split) for data in (one, two, other))
        assert torch.equal(a[0], b[0])
        assert (a[1] == b[1]).all()
        assert not torch.equal(a[0], c[0])
    assert torch.equal(one.read("test")[0], MultiLabelDigits(ratio=5, samples=400).read("test")[0])


def test_noise_reaches_the_training_canvases_alone(canvases):
    noisy = MultiLabelDigits(samples=300, val_samples=60, test_samples=80, ratio=20, label_noise=MissingLabels(0.5))
    noisy.setup()
    assert 0.4 < noisy.noise_rate * 10 / noisy.true_labels.sum(1).mean() < 0.6
    assert noisy.checksum != canvases.checksum
    for mine, clean in ((noisy.val_dataloader(), canvases), (noisy.test_dataloader(), canvases)):
        labels = torch.cat([batch.y for batch in mine])
        assert labels.sum() in [clean.read(split)[1].sum() for split in ("val", "test")]


def test_mean_and_std_are_those_of_the_pixels():
    data = MultiLabelDigits()
    pixels = data.read("train")[0].double() / 255
    assert data.mean[0] == pytest.approx(float(pixels.mean()), abs=2e-3)
    assert data.std[0] == pytest.approx(float(pixels.std()), abs=2e-3)
    assert data.augment is None
    assert data.num_classes == 10


def test_errors_name_argument_and_remedy():
    for options, fault in (
        ({"ratio": 0.5}, "ratio=0.5 must be at least 1"),
        ({"most": 5}, "most=5 does not fit"),
        ({"samples": 0}, "samples=0 must be"),
        ({"test_samples": 0}, "test_samples=0"),
    ):
        with pytest.raises(ValueError, match=fault):
            MultiLabelDigits(**options)
    with pytest.raises(ValueError, match=r"samples=10 leaves the digit .* Raise samples or lower ratio=100"):
        MultiLabelDigits(samples=10).setup("fit")
    with pytest.raises(ValueError, match=r"val_size=0.1 asks for a validation split"):
        MultiLabelDigits(val_size=0.1).setup("fit")
    carved = MultiLabelDigits(val_samples=0, val_size=0.1)
    carved.setup("fit")
    assert len(carved.val_index) == 100
