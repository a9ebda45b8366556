"""Folders of image files: decoding, the cached array, and what is said about a wrong tree."""

import os
import pickle
import tempfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from lightning_perturb.data import CropFlip, ImageFolder, Symmetric
from lightning_perturb.data import image_folder as implementation

CLASSES = ["bird", "cat", "dog"]


def pixels(height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def root(tmp_path):
    """Four training and two test images of 8 x 8 in each of three classes, as PNG."""
    folder = tmp_path / "pets"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for i in range(count):
                save(folder / split / name / f"{i}.png", pixels(seed=100 * label + i + (split == "test") * 50))
    return folder


def small(root, **options):
    return ImageFolder(root=str(root), size=8, **options)


def ready(root, **options):
    data = small(root, **options)
    data.setup()
    return data


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    seen = []
    real = implementation.decode_image

    def recorded(path, size):
        seen.append(path)
        return real(path, size)

    monkeypatch.setattr(implementation, "decode_image", recorded)
    return seen


def test_images_of_the_right_size_are_exact_copies(root):
    data = ready(root)
    for split, count in (("train", 4), ("test", 2)):
        x, y = data.read(split)
        assert x.dtype == torch.uint8
        assert y.tolist() == [label for label in range(3) for _ in range(count)]
        for n, (label, i) in enumerate((label, i) for label in range(3) for i in range(count)):
            expected = pixels(seed=100 * label + i + (split == "test") * 50)
            assert np.array_equal(x[n].numpy(), expected.transpose(2, 0, 1))
    assert data.num_classes == 3
    assert data.class_names == CLASSES
    assert data.read("val") is None


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 21), (16, 16), (33, 20), (20, 33), (5, 7), (100, 8), (9, 8)])
def test_resize_and_crop_are_those_of_torchvision(tmp_path, height, width):
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "x.png", pixels(height, width))
    x, _ = ready(tmp_path).read("train")
    image = Image.fromarray(pixels(height, width))
    expected = transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8)])(image)
    assert np.array_equal(x[0].numpy(), np.asarray(expected).transpose(2, 0, 1))


def test_every_mode_becomes_rgb(tmp_path):
    grey = pixels()[..., 0]
    folder = tmp_path / "train"
    save(folder / "a" / "grey.png", grey)
    save(folder / "b" / "clear.png", np.concatenate([pixels(), np.full((8, 8, 1), 9, np.uint8)], 2))
    Image.fromarray(pixels()).quantize(256).save(folder / "b" / "palette.png")
    x, y = ready(tmp_path).read("train")
    assert y.tolist() == [0, 1, 1]
    assert np.array_equal(x[0].numpy(), np.stack([grey] * 3))
    assert np.array_equal(x[1].numpy(), pixels().transpose(2, 0, 1))  # transparency is dropped


def test_subfolders_belong_to_the_class_and_other_files_do_not_count(root):
    save(root / "train" / "cat" / "deep" / "er" / "z.JPEG", pixels())
    (root / "train" / "cat" / "notes.txt").write_text("seen in May")
    (root / "train" / "cat" / ".hidden.png").write_text("")
    (root / "train" / ".git").mkdir()
    (root / "train" / "README.md").write_text("")
    data = ready(root)
    assert data.num_classes == 3
    assert np.bincount(data.true_labels).tolist() == [4, 5, 4]


def test_the_array_is_decoded_once(root, decoded):
    small(root).prepare_data()
    assert len(decoded) == 18
    data = ready(root)
    small(root).prepare_data()
    ready(root, label_noise=Symmetric(0.5))
    assert len(decoded) == 18
    assert sorted(path.name.split("-")[0] for path in (root / ".cache").iterdir()) == ["test", "train"]
    assert len(data.true_labels) == 12


def test_setup_decodes_where_nobody_prepared(root, decoded):
    data = small(root)
    data.setup("fit")
    assert len(decoded) == 12
    data.setup("test")
    assert len(decoded) == 18


@pytest.mark.parametrize("change", ["add", "remove", "touch", "grow", "rename", "size"])
def test_a_changed_listing_is_decoded_anew(root, decoded, change):
    small(root).prepare_data()
    decoded.clear()
    first = root / "train" / "bird" / "0.png"
    size = 8
    if change == "add":
        save(root / "train" / "dog" / "new.png", pixels())
    elif change == "remove":
        first.unlink()
    elif change == "touch":
        os.utime(first, ns=(1, 1))
    elif change == "grow":
        state = first.stat()
        save(first, np.zeros((8, 8, 3), np.uint8))
        os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "rename":
        first.rename(root / "train" / "cat" / "was_a_bird.png")
    else:
        size = 4
    ImageFolder(root=str(root), size=size).prepare_data()
    expected = {"add": 13, "remove": 11, "touch": 12, "grow": 12, "rename": 12, "size": 18}[change]
    assert len(decoded) == expected


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="looks at the maps that Linux shows")
def test_the_array_is_mapped_from_disk_and_never_written(root):
    (path,) = (p for p in _caches(root) if p.name.startswith("train"))
    before = path.read_bytes()
    data = ready(root, batch_size=5)
    x, _ = data.read("train")
    storage = x.untyped_storage().data_ptr()
    with open("/proc/self/maps") as maps:  # the pages of the tensor are pages of the file
        mine = [line for line in maps if line.rstrip().endswith(str(path))]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in mine]
    assert any(low <= storage < high for low, high in spans)
    assert all(" r--" in line for line in mine)
    for loader in (data.train_dataloader(), data.score_dataloader(), data.test_dataloader()):
        for batch in loader:
            batch.x.zero_()  # a batch is a copy
    data.raw_inputs([0, 1]).zero_()
    assert path.read_bytes() == before


def _caches(root):
    small(root).prepare_data()
    return list((root / ".cache").iterdir())


def test_mapping_gives_no_warning(root):
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ready(root).raw_inputs([0])
    finally:
        torch.set_warn_always(False)


def test_the_cache_can_stand_elsewhere(root, tmp_path, decoded):
    for _ in range(2):
        small(root, cache=str(tmp_path / "deep" / "cache")).prepare_data()
    assert len(decoded) == 18
    assert len(list((tmp_path / "deep" / "cache").iterdir())) == 2
    assert not (root / ".cache").exists()


def test_a_root_that_cannot_be_written_is_cached_in_a_temporary_folder(root, tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (root / ".cache").write_text("in the way, as a read-only disk would be")
    for _ in range(2):
        assert len(ready(root).true_labels) == 12
    assert len(decoded) == 18
    (folder,) = (tmp_path / "temporary").iterdir()
    assert len(list(folder.iterdir())) == 2


def test_an_array_beside_a_root_that_became_read_only_is_used(root, monkeypatch, decoded):
    small(root).prepare_data()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(ready(root).true_labels) == 12
    assert len(decoded) == 18


def test_no_writable_cache_is_an_error(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"None of .*file can be written\. Set cache"):
        small(root, cache=str(tmp_path / "file")).prepare_data()


def test_a_failed_decoding_leaves_nothing_behind(root):
    (root / "train" / "dog" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"dog/3\.png cannot be read as an image .* Replace or remove the file"):
        small(root).prepare_data()
    assert list((root / ".cache").iterdir()) == []


def test_a_truncated_image_is_named(root):
    path = root / "train" / "cat" / "big.jpg"
    save(path, pixels(64, 64))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"cat/big\.jpg cannot be read as an image \(.*truncated"):
        small(root).prepare_data()


def test_a_damaged_cache_is_named(root):
    for path in _caches(root):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"train-8-.*\.npy is damaged .* Delete it"):
        ready(root)


def test_more_files_than_a_block_keep_their_order(root, monkeypatch):
    whole = ready(root, cache=str(root / "whole")).read("train")[0]
    monkeypatch.setattr(implementation, "_BLOCK", 5)
    assert torch.equal(ready(root, cache=str(root / "blocks")).read("train")[0], whole)


def test_progress_goes_to_stderr(root, capsys):
    small(root).prepare_data()
    out, err = capsys.readouterr()
    assert out == ""
    assert "Decoding 12 train images" in err
    small(root).prepare_data()
    assert capsys.readouterr().err == ""


def test_a_validation_folder_is_the_validation_split(root):
    for label, name in enumerate(CLASSES):
        save(root / "val" / name / "0.png", pixels(seed=label + 500))
    data = ready(root, label_noise=Symmetric(1.0))
    (batch,) = list(data.val_dataloader())
    assert batch.y.tolist() == [0, 1, 2]  # its own folder is clean
    assert np.array_equal(batch.x[2].numpy(), pixels(seed=502).transpose(2, 0, 1))
    assert data.noise_rate == 1.0
    assert len(data.train_index) == 12
    with pytest.raises(ValueError, match=r"val_size=0\.25 asks for a validation split, but ImageFolder found one"):
        ready(root, val_size=0.25)


def test_the_class_count_needs_no_image(root, decoded):
    data = small(root)
    assert data.num_classes == 3
    assert decoded == []
    assert not (root / ".cache").exists()


def test_augmentation_and_statistics(root):
    assert small(root).augment.padding == 1
    default = ImageFolder(root=str(root))
    assert isinstance(default.augment, CropFlip)
    assert default.augment.padding == 4
    assert default.size == 32
    assert small(root, augment=False).augment is None
    assert default.mean == pytest.approx((0.485, 0.456, 0.406))
    assert default.std == pytest.approx((0.229, 0.224, 0.225))
    data = small(root, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    x = data.normalize(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    np.testing.assert_allclose(x[0, :, 0, 0], [1.0, 0.75, 0.5], rtol=1e-6)


def test_it_survives_pickling(root):
    data = ready(root)
    batch = next(iter(data.score_dataloader()))
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(next(iter(copy.score_dataloader())).x, batch.x)


def test_missing_root_says_what_to_put_where(tmp_path):
    for make in (lambda: small(tmp_path / "x").num_classes, lambda: small(tmp_path / "x").prepare_data()):
        with pytest.raises(FileNotFoundError, match=r"root='.*x' has no class folders in train/\. Put the images into"):
            make()
    (tmp_path / "x" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has no class folders in train"):
        small(tmp_path / "x").prepare_data()


def test_wrong_trees_are_named(root):
    (root / "test" / "dog").rename(root / "test" / "doge")
    with pytest.raises(ValueError, match=r"test lacks the class folder 'dog', unlike .*/train \(1 such folders\)"):
        small(root).prepare_data()
    (root / "test" / "doge").rename(root / "test" / "dog")
    (root / "test" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"test has the class folder 'eel', unlike"):
        ready(root)
    (root / "test" / "eel").rmdir()
    (root / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"train/eel holds no image \(1 such classes\)"):
        ready(root)


def test_without_a_test_folder_training_works_and_the_test_says_so(root):
    (root / "test").rename(root / "put aside")
    data = ready(root)
    assert len(list(data.train_dataloader())) == 1
    with pytest.raises(ValueError, match="ImageFolder has no test split"):
        data.test_dataloader()


def test_options_that_make_no_sense(root):
    for options, message in [
        ({"size": 0}, "size=0 must be"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) and std="),
        ({"std": (0.5, 0.5, 0.0)}, "those of std above 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ImageFolder(root=str(root), **options)
