"""Images that are decoded when they are served, and the text lists that name them."""

import pickle

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image
from testkit.images import picture
from testkit.training import trainer_of
from torch import nn

from lightning_perturb.data import ImageLists, ImageNetLT, INaturalist2018, InstanceShared, PlacesLT, Symmetric
from lightning_perturb.data.image_files import ImageFiles, decode_image
from lightning_perturb.methods import CrossEntropy
from lightning_perturb.nets import ConvNet

CLASSES, TRAIN, TEST = 3, 12, 6


@pytest.fixture
def folder(tmp_path):
    """Images under train/ and val/, and the two lists; names with a space are legal."""
    for split, number in (("train", TRAIN), ("val", TEST)):
        lines = []
        for i in range(number):
            name = f"{split}/n{i % CLASSES:02}/image {i}.png"
            picture(tmp_path / name, seed=i + 100 * (split == "val"), width=40 + i)
            lines.append(f"{name} {i % CLASSES}\n")
        (tmp_path / f"{split}.txt").write_text("".join(lines) + "\n")
    return tmp_path


def lists(folder, **options):
    names = {"train_list": str(folder / "train.txt"), "test_list": str(folder / "val.txt")}
    return ImageLists(str(folder), **{**names, "size": 16, "load_size": 20, "batch_size": 5, **options})


def ready(folder, **options):
    data = lists(folder, **options)
    data.setup()
    return data


# the files ----------------------------------------------------------------------------------------------------------


def test_files_stand_in_for_the_tensor_of_their_pixels(folder):
    paths = [str(folder / f"train/n{i % CLASSES:02}/image {i}.png") for i in range(TRAIN)]
    files = ImageFiles(paths, 20)
    whole = torch.from_numpy(np.stack([decode_image(path, 20) for path in paths]))
    assert (len(files), files.ndim, files.dtype, files.shape) == (12, 4, torch.uint8, (12, 3, 20, 20))
    chosen = torch.tensor([7, 0, 7])
    assert torch.equal(files.index_select(0, chosen), whole[chosen])
    assert torch.equal(files[chosen], whole[chosen])
    assert [files.path(i) for i in range(TRAIN)] == paths
    assert torch.equal(pickle.loads(pickle.dumps(files))[chosen], whole[chosen])
    assert files[torch.tensor([], dtype=torch.long)].shape == (0, 3, 20, 20)


def test_how_an_image_becomes_a_square(tmp_path):
    picture(tmp_path / "wide.png", seed=1, width=40, height=20)
    original = np.asarray(Image.open(tmp_path / "wide.png")).transpose(2, 0, 1)
    cropped = decode_image(str(tmp_path / "wide.png"), 20)
    np.testing.assert_array_equal(cropped, original[:, :, 10:30])
    stretched = decode_image(str(tmp_path / "wide.png"), 20, "stretch")
    expected = Image.open(tmp_path / "wide.png").resize((20, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(stretched, np.asarray(expected).transpose(2, 0, 1))
    picture(tmp_path / "square.png", seed=2, width=20, height=20)
    same = np.asarray(Image.open(tmp_path / "square.png")).transpose(2, 0, 1)
    for fit in ("crop", "stretch"):
        np.testing.assert_array_equal(decode_image(str(tmp_path / "square.png"), 20, fit), same)


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "train/n00/image 0.png").write_bytes(b"no image")
    data = ready(folder)
    with pytest.raises(ValueError, match=r"image 0\.png cannot be read as an image.*Replace or remove"):
        list(data.score_dataloader())


# serving ------------------------------------------------------------------------------------------------------------


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [(batch.x, batch.y, batch.index) for batch in loader]


def test_every_worker_and_epoch_serves_what_its_place_says(folder):
    alone = ready(folder, label_noise=Symmetric(0.5))
    first, second = batches(alone), batches(alone, 1)
    for x, y, index in first:
        assert x.shape[1:] == (3, 16, 16)
        assert x.dtype == torch.uint8
        assert torch.equal(y, torch.from_numpy(alone.given_labels)[index])
    by_index = {int(i): row for x, _, index in first for row, i in zip(x, index, strict=True)}
    again = {int(i): row for x, _, index in second for row, i in zip(x, index, strict=True)}
    assert any(not torch.equal(by_index[i], again[i]) for i in by_index), "every epoch looks alike"
    by_workers = batches(ready(folder, label_noise=Symmetric(0.5), num_workers=2))
    for one, other in zip(first, by_workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_evaluation_sees_the_middle_and_always_the_same(folder):
    data = ready(folder, augment=False)
    middle = data.raw_inputs(np.arange(TRAIN))[..., 2:18, 2:18]
    served = torch.cat([batch.x for batch in data.score_dataloader()])
    assert torch.equal(served, middle)
    for x, _, index in batches(data):
        assert torch.equal(x, middle[index])
    test = torch.cat([batch.x for batch in data.test_dataloader()])
    assert test.shape == (TEST, 3, 16, 16)
    whole = ready(folder, load_size=16)
    assert torch.equal(torch.cat([batch.x for batch in whole.score_dataloader()]), whole.raw_inputs(np.arange(TRAIN)))


def test_a_method_trains_and_tests_on_them(folder):
    data = lists(folder, val_size=3, label_noise=Symmetric(0.3))
    module = CrossEntropy(ConvNet(CLASSES, width=4), CLASSES)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=data)
    (found,) = trainer.test(module, datamodule=data, verbose=False)
    assert 0 <= found["test/acc"] <= 1
    assert trainer.global_step == 2


class Foreign(LightningModule):
    """A module of another project."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3 * 16 * 16, CLASSES)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_foreign_module_gets_pairs(folder):
    trainer_of(max_epochs=1).fit(Foreign(), datamodule=lists(folder))


def test_noise_that_looks_at_all_pixels_is_refused(folder):
    with pytest.raises(ValueError, match=r"looks at the pixels.*images that are decoded one by one.*labels alone"):
        ready(folder, label_noise=InstanceShared(0.3))


# the lists ----------------------------------------------------------------------------------------------------------


def test_labels_and_classes_come_from_the_lists(folder):
    data = ready(folder)
    assert data.num_classes == CLASSES
    assert data.true_labels.tolist() == [i % CLASSES for i in range(TRAIN)]
    assert data.facts.num_samples == TRAIN
    assert data.val_dataloader() == []
    assert lists(folder, num_classes=5).num_classes == 5
    clean = ready(folder, val_list=str(folder / "val.txt"))
    assert len(torch.cat([batch.y for batch in clean.val_dataloader()])) == TEST


def test_what_is_missing_is_named_with_its_place(folder):
    for options, message in (
        ({"train_list": str(folder / "no.txt")}, r"train_list: .*no\.txt does not exist.*relative/path class_id"),
        ({"test_list": str(folder / "no.txt")}, r"test_list: .*no\.txt does not exist"),
        ({"root": str(folder / "elsewhere")}, r"image 0\.png does not exist, but .*train\.txt lists it \(12 of 12"),
    ):
        root = options.pop("root", None)
        data = lists(folder, **options)
        if root is not None:
            data = ImageLists(root, str(folder / "train.txt"))
        with pytest.raises(FileNotFoundError, match=message):
            data.setup()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/a.png", r"train\.txt, line 1: 'train/a\.png' is not 'relative/path class_id'"),
        ("train/a.png cat", "line 1: 'train/a.png cat' is not"),
        ("train/a.png -1", "line 1: 'train/a.png -1' is not"),
        ("train/a.png 7", r"train\.txt: label\[0\]=7 is outside 0\.\.4"),
        ("", r"train\.txt lists no image for the train split"),
    ],
)
def test_lines_that_do_not_fit(folder, line, message):
    (folder / "train.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        lists(folder, num_classes=5).setup()


def test_a_list_without_images_has_no_classes(folder):
    (folder / "train.txt").write_text("")
    with pytest.raises(ValueError, match=r"train\.txt lists no image for the train split\. Give a list with images"):
        _ = lists(folder).num_classes


def test_sizes_that_do_not_fit(folder):
    for options, message in (
        ({"load_size": 8}, "load_size=8 is less than size=16"),
        ({"fit": "squeeze"}, "fit='squeeze' is unknown"),
        ({"std": (0.0, 1.0, 1.0)}, "std="),
        ({"size": 0}, "size=0 must be"),
    ):
        with pytest.raises(ValueError, match=message):
            lists(folder, **options)


@pytest.mark.parametrize(
    ("source", "names", "classes"),
    [
        (ImageNetLT, {s: f"ImageNet_LT_{s}.txt" for s in ("train", "val", "test")}, 1000),
        (PlacesLT, {s: f"Places_LT_{s}.txt" for s in ("train", "val", "test")}, 365),
        (INaturalist2018, {"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"}, 8142),
    ],
)
def test_published_lists(source, names, classes, folder, monkeypatch):
    # the last class stands in each, so that the width is right
    for split, name in names.items():
        original = (folder / ("train.txt" if split == "train" else "val.txt")).read_text().split("\n")
        original[0] = original[0][:-1] + str(classes - 1)
        (folder / name).write_text("\n".join(original))
    data = source(str(folder), size=16, load_size=20)
    assert data.num_classes == classes
    with pytest.warns(
        UserWarning, match=rf"12 train images, {source.__name__} was published with {data.published['train']}"
    ):
        data.setup("fit")
    with pytest.warns(UserWarning, match=rf"gives 6 test images.*published with {data.published['test']}"):
        data.setup("test")
    assert data.true_labels[0] == classes - 1
    assert ("val" in names) == (data.val_dataloader() != [])
    monkeypatch.setattr(source, "published", {"train": 12, "val": 6, "test": 6})
    source(str(folder), size=16, load_size=20).setup()
    (folder / names["train"]).rename(folder / "other.txt")
    with pytest.raises(
        FileNotFoundError, match=rf"{names['train']} does not exist.*published lists of {source.__name__}"
    ):
        source(str(folder)).setup("fit")
    with pytest.raises(FileNotFoundError, match="give their folder as lists"):
        source(str(folder), lists=str(folder / "nowhere")).setup("fit")


def test_inaturalist_has_its_own_pixels(folder):
    data = INaturalist2018(str(folder))
    assert data.mean == (0.466, 0.471, 0.380)
    assert data.std == (0.195, 0.194, 0.192)
    assert ImageNetLT(str(folder)).mean == (0.485, 0.456, 0.406)
    assert (data.size, data.load_size) == (224, 256)
