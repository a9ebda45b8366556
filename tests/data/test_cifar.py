"""CIFAR-10 and CIFAR-100 from files in the published layout, in small."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision

from lightning_perturb.data import CIFAR10, CIFAR100, CropFlip, Symmetric

NAMES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAMES_100 = [f"thing {c}" for c in range(100)]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path.name, hashlib.md5(path.read_bytes()).hexdigest()


def rows(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Five batches of 20 and a test batch of 10."""
    folder = tmp_path / "cifar-10-batches-py"
    batches = [
        write(folder / f"data_batch_{i}", {"data": rows(20, i), "labels": [(i + j) % 10 for j in range(20)]})
        for i in range(1, 6)
    ]
    test = write(folder / "test_batch", {"data": rows(10, 6), "labels": list(range(10))})
    name, md5 = write(folder / "batches.meta", {"label_names": NAMES_10})
    source = torchvision.datasets.CIFAR10
    monkeypatch.setattr(source, "train_list", batches)
    monkeypatch.setattr(source, "test_list", [test])
    monkeypatch.setattr(source, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """Three images of each class and a test image of each."""
    folder = tmp_path / "cifar-100-python"
    train = {"data": rows(300, 1), "fine_labels": [j % 100 for j in range(300)], "coarse_labels": [0] * 300}
    test = {"data": rows(100, 2), "fine_labels": list(range(100)), "coarse_labels": [0] * 100}
    source = torchvision.datasets.CIFAR100
    monkeypatch.setattr(source, "train_list", [write(folder / "train", train)])
    monkeypatch.setattr(source, "test_list", [write(folder / "test", test)])
    name, md5 = write(folder / "meta", {"fine_label_names": NAMES_100})
    monkeypatch.setattr(source, "meta", {"filename": name, "key": "fine_label_names", "md5": md5})
    return tmp_path


def test_cifar10_reads_pixels_labels_and_names(cifar10):
    data = CIFAR10(root=str(cifar10))
    data.setup()
    x, y = data.read("train")
    # the published rows are the red plane, then green, then blue, each row by row
    assert torch.equal(x, torch.from_numpy(np.concatenate([rows(20, i) for i in range(1, 6)]).reshape(-1, 3, 32, 32)))
    assert y.tolist() == [(i + j) % 10 for i in range(1, 6) for j in range(20)]
    assert x.dtype == torch.uint8
    assert x.is_contiguous()
    test_x, test_y = data.read("test")
    assert torch.equal(test_x, torch.from_numpy(rows(10, 6).reshape(-1, 3, 32, 32)))
    assert test_y.tolist() == list(range(10))
    assert data.read("val") is None
    assert (data.num_classes, data.class_names) == (10, NAMES_10)
    assert data.facts.num_samples == 100


def test_cifar100_reads_fine_labels(cifar100):
    data = CIFAR100(root=str(cifar100), label_noise=Symmetric(0.5))
    assert data.num_classes == 100
    assert data.class_names == [str(c) for c in range(100)]  # known before the files are read
    data.setup()
    assert data.class_names == NAMES_100
    assert data.true_labels.tolist() == [j % 100 for j in range(300)]
    assert data.class_counts.shape == (100,)
    assert torch.equal(data.raw_inputs([7])[0], torch.from_numpy(rows(300, 1)[7].reshape(3, 32, 32)))


def test_statistics_are_the_published_ones():
    assert CIFAR10.mean == pytest.approx((0.4914, 0.4822, 0.4465))
    assert CIFAR10.std == pytest.approx((0.2470, 0.2435, 0.2616))
    assert CIFAR100.mean == pytest.approx((0.5071, 0.4865, 0.4409))
    assert CIFAR100.std == pytest.approx((0.2673, 0.2564, 0.2762))


def test_crop_and_flip_by_default(cifar10):
    augment = CIFAR10(root=str(cifar10)).augment
    assert isinstance(augment, CropFlip)
    assert (augment.padding, augment.mode, augment.flip) == (4, "zeros", True)
    assert CIFAR10(root=str(cifar10), augment=False).augment is None
    mirrored = CropFlip(mode="reflect")
    assert CIFAR10(root=str(cifar10), augment=mirrored).augment is mirrored


@pytest.mark.parametrize(
    ("cls", "folder"), [(CIFAR10, "cifar-10-batches-py"), (CIFAR100, "cifar-100-python")], ids=["10", "100"]
)
def test_missing_files_say_what_to_put_where(tmp_path, cls, folder):
    with pytest.raises(FileNotFoundError, match=rf"root='.*' does not hold the files of {cls.__name__}") as caught:
        cls(root=str(tmp_path)).setup("fit")
    assert f"{tmp_path}/{folder}/ exists" in str(caught.value)
    assert "set download to true" in str(caught.value)


def test_a_damaged_file_is_named_as_such(cifar10):
    (cifar10 / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"half a download")
    with pytest.raises(FileNotFoundError, match="or they are damaged"):
        CIFAR10(root=str(cifar10)).setup("fit")


def test_only_download_fetches(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(CIFAR10, "_dataset", staticmethod(lambda *args, **kwargs: calls.append((args, kwargs))))
    CIFAR10(root=str(tmp_path)).prepare_data()
    assert calls == []
    CIFAR10(root=str(tmp_path), download=True).prepare_data()
    assert calls == [((str(tmp_path),), {"train": True, "download": True})]
