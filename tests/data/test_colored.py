"""Digits whose colour goes with their class: embedded ones, and MNIST's in the files that torchvision stores."""

import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lightning_perturb.data import ColoredDigits, ColoredMNIST, Symmetric

SPLITS = ("train", "val", "test")
DIGITS = np.random.default_rng(0).integers(0, 10, 60_000).astype(np.uint8)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """MNIST's training images in 2 x 2 pixels, each with its number in the file."""
    root = tmp_path_factory.mktemp("mnist")
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    numbers = np.arange(60_000, dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2)
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, 60_000, 2, 2) + numbers.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, 60_000) + DIGITS.tobytes())
    return root


def test_the_published_parts_of_mnist(mnist):
    data = ColoredMNIST(str(mnist))
    for split, first, last, other in (
        ("train", 0, 30_000, 0.2),
        ("val", 30_000, 40_000, 0.5),
        ("test", 40_000, 60_000, 0.9),
    ):
        x, y = data.read(split)
        color = data.read_domains(split)
        assert x.dtype == torch.uint8
        assert x.shape == (last - first, 3, 2, 2)
        chosen = x[torch.arange(len(x)), torch.from_numpy(color)]
        assert chosen.reshape(-1, 4).numpy().view(np.uint32).reshape(-1).tolist() == list(range(first, last))
        assert torch.equal(x.sum(1), chosen.long()), "the other two channels are black"
        # four standard deviations of a share of 10 000
        assert (y != (DIGITS[first:last] >= 5)).mean() == pytest.approx(0.25, abs=0.018)
        assert (color != y).mean() == pytest.approx(other, abs=0.02)
        # the flip of a class says nothing of the colour
        assert np.corrcoef(y != (DIGITS[first:last] >= 5), color != y)[0, 1] == pytest.approx(0, abs=0.04)


def test_mnist_in_a_run(mnist):
    data = ColoredMNIST(str(mnist), batch_size=500)
    data.setup("fit")
    counts = data.facts.group_counts
    assert counts.sum() == 30_000
    assert counts.argmax(1).tolist() == [0, 1], "class 0 is red, class 1 green"
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch.extra["domain"], torch.from_numpy(data.domains)[batch.index])
    moved = data.on_after_batch_transfer(batch, 0)
    assert moved.x[:, 2].abs().max() == 0


def test_missing_and_damaged_files_are_named(mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root='nowhere' does not hold MNIST.*labels-idx1.*download"):
        ColoredMNIST("nowhere").setup("fit")
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">2i", 0x801, 9) + bytes(9))
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte holds 9 of MNIST's 60000"):
        ColoredMNIST(str(tmp_path)).setup("fit")
    path.write_bytes(b"no labels at all")
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte is damaged"):
        ColoredMNIST(str(tmp_path)).setup("fit")


def test_no_embedded_image_is_in_two_splits():
    data = ColoredDigits()
    grey = np.concatenate([data.grey(split).numpy().reshape(-1, 64) for split in SPLITS])
    digits = np.concatenate([data.digits(split) for split in SPLITS])
    pixels, labels = load_digits(return_X_y=True)
    expected = np.floor(pixels * 255 / 16 + 0.5)
    rows, wanted = (
        sorted(map(tuple, np.c_[x, y].astype(int).tolist())) for x, y in ((grey, digits), (expected, labels))
    )
    assert rows == wanted
    assert [len(data.digits(split)) for split in SPLITS] == [899, 299, 599]


def shares(data, split):
    y, color, digits = data.read(split)[1], data.read_domains(split), data.digits(split)
    return (y != (digits >= 5)).mean(), (color != y).mean()


@pytest.mark.parametrize("flips", [(0.25, 0.2, 0.5, 0.9), (0.0, 0.05, 0.3, 0.95)])
def test_realised_correlations_of_embedded_digits(flips):
    names = ("label_flip", "train_flip", "val_flip", "test_flip")
    data = ColoredDigits(**dict(zip(names, flips, strict=True)))
    for split, other in zip(SPLITS, flips[1:], strict=True):
        # three standard deviations of a share of the smallest split
        assert shares(data, split) == pytest.approx((flips[0], other), abs=0.09)
    x = data.read("train")[0]
    color = data.read_domains("train")
    assert np.array_equal(x.flatten(2).any(2).int().argmax(1), color)
    assert not x[:, 2].any()


def test_extremes_and_faults():
    data = ColoredDigits(label_flip=0, train_flip=0, test_flip=1)
    assert shares(data, "train") == (0, 0)
    assert shares(data, "test") == (0, 1)
    for name in ("label_flip", "train_flip", "val_flip", "test_flip"):
        with pytest.raises(ValueError, match=rf"{name}=1.5 is not a share"):
            ColoredDigits(**{name: 1.5})
    with pytest.raises(ValueError, match=r"val_size=0.1 asks for a validation split"):
        ColoredDigits(val_size=0.1).setup("fit")


def test_what_seeds_move():
    base, again = ColoredDigits(), ColoredDigits(seed=1, label_noise=Symmetric(0.2), train_flip=0.4)
    for split in SPLITS:
        # neither the seed of the run nor another share of colours moves the classes
        assert np.array_equal(base.read(split)[1], again.read(split)[1])
    assert np.array_equal(base.read_domains("test"), again.read_domains("test"))
    other = ColoredDigits(color_seed=1)
    assert not np.array_equal(base.read("train")[1], other.read("train")[1])
    base.setup("fit")
    again.setup("fit")
    assert np.array_equal(base.true_labels, again.true_labels)
    assert base.checksum != again.checksum
