"""Arrays and tensors, in memory and from files."""

import numpy as np
import pytest
import torch

from lightning_perturb.data import Arrays, MissingLabels, Step, Symmetric


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(count=12, classes=3):
    return np.arange(count) % classes


def ready(*args, **kwargs):
    data = Arrays(*args, **kwargs)
    data.setup()
    return data


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_images_stay_as_they_are(convert):
    x = pixels(12, 3, 5, 4)
    data = ready(convert(x), convert(labels()))
    got, y = data.read("train")
    assert got.dtype == torch.uint8
    assert np.array_equal(got.numpy(), x)
    assert y.dtype == np.int64
    assert y.tolist() == labels().tolist()
    assert data.num_classes == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_images_are_turned(channels):
    x = pixels(12, 6, 5, channels)
    got = ready(x, labels()).read("train")[0]
    assert got.shape == (12, channels, 6, 5)
    assert got.is_contiguous()
    assert int(got[4, channels - 1, 2, 3]) == x[4, 2, 3, channels - 1]


def test_grey_images_without_a_channel_get_one():
    x = pixels(12, 6, 5)
    got = ready(x, labels()).read("train")[0]
    assert np.array_equal(got.numpy()[:, 0], x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_tabular_features_become_float32(dtype):
    x = np.arange(48).reshape(12, 4).astype(dtype)
    data = ready(x, labels(), batch_size=12)
    got = data.read("train")[0]
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), x.astype(np.float64))
    assert data.mean is None
    (batch,) = list(data.score_dataloader())
    # features reach the network as they are
    assert torch.equal(data.on_after_batch_transfer(batch, 0).x, got)


def test_float_images_are_features_too():
    data = ready(np.random.default_rng(0).random((12, 3, 4, 4)), labels())
    assert data.read("train")[0].shape == (12, 3, 4, 4)
    assert data.facts.mean is None


def test_statistics_are_those_of_the_training_images():
    x, x_test = pixels(12, 3, 5, 4), pixels(6, 3, 5, 4, seed=1) // 2
    data = Arrays(x, labels(), x_test, labels(6))
    scaled = x.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std((0, 2, 3)), rtol=1e-6)
    given = Arrays(x, labels(), mean=(0.1, 0.2, 0.3))
    assert given.mean == (0.1, 0.2, 0.3)
    assert given.std == data.std


def test_a_constant_channel_does_not_divide_by_zero():
    data = Arrays(np.full((12, 1, 4, 4), 7, dtype=np.uint8), labels())
    assert torch.isfinite(data.normalize(data.read("train")[0])).all()


def test_files(tmp_path):
    x, y = pixels(12, 3, 5, 4), labels()
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "both.npz", y=y, x=x)
    np.savez(tmp_path / "single.npz", y)
    torch.save(torch.from_numpy(x), tmp_path / "x.pt")
    for x_file in ("x.npy", "both.npz", "x.pt"):
        for y_file in ("both.npz", "single.npz"):
            data = Arrays(str(tmp_path / x_file), tmp_path / y_file)
            got, read = data.read("train")
            assert np.array_equal(got.numpy(), x)
            assert read.tolist() == y.tolist()


def test_held_out_test_samples_are_the_same_for_every_seed():
    x, y = pixels(30, 1, 2, 2), labels(30)
    first, second = (ready(x, y, test_size=0.2, seed=seed) for seed in (0, 1))
    assert torch.equal(first.read("test")[0], second.read("test")[0])
    assert len(first.read("test")[1]) == 6
    rows = torch.cat([first.read("train")[0], first.read("test")[0]]).flatten(1).tolist()
    assert sorted(rows) == sorted(x.reshape(30, -1).tolist())
    assert np.bincount(first.read("test")[1]).tolist() == [2, 2, 2]
    assert len(Arrays(x, y, test_size=9).read("test")[1]) == 9


def test_test_arrays_are_served_clean():
    x_test, y_test = pixels(5, 1, 2, 2, seed=1), np.asarray([2, 1, 0, 2, 1])
    data = ready(pixels(12, 1, 2, 2), labels(), x_test, y_test)
    (batch,) = list(data.test_dataloader())
    assert np.array_equal(batch.x.numpy(), x_test)
    assert batch.y.tolist() == y_test.tolist()
    assert data.read("val") is None


def test_without_a_test_split_the_error_says_so():
    with pytest.raises(ValueError, match="Arrays has no test split"):
        ready(pixels(12, 1, 2, 2), labels()).test_dataloader()


def test_whole_numbers_in_floats_are_labels():
    assert Arrays(pixels(12, 1, 2, 2), labels().astype(np.float32)).read("train")[1].dtype == np.int64


def test_errors_name_argument_and_remedy(tmp_path):
    x, y = pixels(12, 1, 2, 2), labels()
    broken = tmp_path / "labels.csv"
    broken.write_text("0")
    cases = [
        ((x, y[:5]), {}, "x has 12 samples and y 5"),
        ((x[:0], y[:0]), {}, "x and y hold no samples"),
        ((x, y, x), {}, "x_test and y_test belong together"),
        ((x, y), {"y_test": y}, "x_test and y_test belong together"),
        ((x, y, x, y[:3]), {}, "x_test has 12 samples and y_test 3"),
        ((x, y, x, y), {"test_size": 0.5}, "test_size=0.5 and x_test contradict"),
        ((x, y, x / 255, y), {}, "x_test holds torch.float32 .* and x torch.uint8"),
        ((x, y, pixels(12, 1, 3, 3), y), {}, r"shape \(1, 3, 3\) and x torch.uint8 of shape \(1, 2, 2\)"),
        ((x, y), {"test_size": -1}, "test_size=-1 must be"),
        ((x, y), {"test_size": 12}, "test_size: size=12 .*Hold out at most 9"),
        ((x, y), {"num_classes": 2}, r"y\[2\]=2 is outside 0..1"),
        ((x, y - 1), {}, r"y\[0\]=-1 is outside 0..1"),
        ((x, y + 0.5), {}, "y has shape .* and type float64. Give class ids"),
        ((x, np.full(12, np.nan)), {}, "y has shape .* and type float64. Give class ids"),
        ((x, np.asarray(["cat"] * 12)), {}, "y has shape .* and type <U3. Give class ids"),
        ((x, np.eye(3)[y][None]), {}, r"y has shape \(1, 12, 3\)"),
        ((x, 2 * np.eye(3)[y]), {}, r"y\[0, 0\]=2 is neither 0 nor 1 \(12 such entries\)"),
        ((x, np.eye(3)[y]), {"num_classes": 4}, r"y has shape \(12, 3\).*shape \[N, 4\]"),
        ((x, np.eye(3)[y], x, y), {}, r"y_test has shape \(12,\) and y \(12, 3\)"),
        ((x / 255, y), {"mean": (0.5,)}, r"mean=\(0.5,\) and std=None are for uint8 images"),
        ((str(broken), y), {}, "unknown ending"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            Arrays(*arguments, **options)
    with pytest.raises(FileNotFoundError, match=r"x='nowhere.npy' is not a file. Give a .npy, .npz or .pt file"):
        Arrays("nowhere.npy", y)


def test_several_labels_a_sample():
    y = np.asarray([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]] * 3)
    for form in (y, y.astype(bool), y.astype(np.float32), torch.from_numpy(y)):
        data = ready(pixels(12, 1, 2, 2), form, label_noise=MissingLabels(0.5), val_size=4, batch_size=3)
        assert data.multi_label
        assert data.num_classes == 3
        assert data.facts.multi_label
        assert data.facts.train_samples == len(data.train_index) == 8
        assert data.class_counts.tolist() == data.given_labels[data.train_index].sum(0).tolist()
        assert (data.noisy == (data.given_labels != data.true_labels).any(1)).all()
        assert data.noise_rate == (data.given_labels != y)[data.train_index].mean()
        assert data.transition_matrix.shape == (3, 2, 2)
        batch = next(iter(data.train_dataloader()))
        assert batch.y.dtype == torch.float32
        assert torch.equal(batch.y, torch.from_numpy(data.given_labels[batch.index]).float())
        score = torch.cat([b.y for b in data.score_dataloader()])
        assert torch.equal(score, torch.from_numpy(data.given_labels[data.train_index]).float())
    other = ready(pixels(12, 1, 2, 2), y, label_noise=MissingLabels(0.4), val_size=4)
    assert other.checksum != data.checksum


def test_what_says_nothing_of_several_labels_is_refused_by_name():
    y = labels()
    several = np.eye(3)[y]
    for given, options, message in (
        (several, {"label_noise": Symmetric(0.1)}, "these labels are multi-hot. Choose MultiLabelSymmetric"),
        (y, {"label_noise": MissingLabels(0.1)}, "these are class ids. Choose a noise .* such as Symmetric"),
        (several, {"imbalance": Step(2)}, "imbalance=Step .* several. Set imbalance to null"),
        (several, {"meta_size": 3}, "meta_size=3 .* several. Set meta_size to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ready(pixels(12, 1, 2, 2), given, **options)


def test_test_labels_outside_the_classes_are_found():
    x = pixels(12, 1, 2, 2)
    with pytest.raises(ValueError, match=r"outside 0\.\.2"):
        ready(x, labels(), x, labels(12, 4))
