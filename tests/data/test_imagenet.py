"""ImageNet and Tiny-ImageNet in their published layouts."""

import pytest
import torch
from testkit.images import picture
from testkit.training import trainer_of

from lightning_perturb.data import ImageNet, TinyImageNet
from lightning_perturb.methods import CrossEntropy
from lightning_perturb.nets import ConvNet

WNIDS = ["n01440764", "n01443537", "n02979186"]


@pytest.fixture
def folder(tmp_path):
    """Class folders in train/ and val/, and the validation images flat in flat/val/ beside a list."""
    lines = []
    for c, wnid in enumerate(WNIDS):
        for i in range(4):
            picture(tmp_path / f"train/{wnid}/{wnid}_{i}.JPEG", seed=10 * c + i)
        for i in range(2):
            picture(tmp_path / f"val/{wnid}/ILSVRC2012_val_0000000{2 * c + i}.JPEG", seed=100 + 2 * c + i)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/train").symlink_to(tmp_path / "train")
    for number in range(6):
        name = f"ILSVRC2012_val_0000000{number}.JPEG"
        picture(tmp_path / "flat/val" / name, seed=100 + number)
        lines.append(f"{name} {number // 2}\n")
    (tmp_path / "flat/val.txt").write_text("".join(reversed(lines)))
    return tmp_path


def imagenet(root, **options):
    return ImageNet(str(root), **{"num_classes": 3, "size": 16, "load_size": 20, "batch_size": 6, **options})


def test_folders(folder):
    data = imagenet(folder)
    with pytest.warns(UserWarning, match="12 train images, ImageNet was published with 1281167"):
        data.setup("fit")
    with pytest.warns(UserWarning, match="6 test images, ImageNet was published with 50000"):
        data.setup("test")
    assert data.class_names == WNIDS
    assert data.true_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.val_dataloader() == []
    assert [data._train[0].path(i)[-16:] for i in (0, 4)] == ["n01440764_0.JPEG", "n01443537_0.JPEG"]
    (batch,) = data.test_dataloader()
    assert batch.x.shape == (6, 3, 16, 16)
    assert ImageNet(str(folder)).num_classes == 1000


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_flat_validation_images_are_those_of_the_folders(folder):
    served = []
    for data in (imagenet(folder), imagenet(folder / "flat", val_list=str(folder / "flat/val.txt"))):
        data.setup("test")
        (batch,) = data.test_dataloader()
        served.append((batch.x, batch.y))
    (x, y), (flat_x, flat_y) = served
    assert torch.equal(x, flat_x.flip(0))
    assert torch.equal(y, flat_y.flip(0))


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_what_is_wrong_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"has no class folders in train/. Unpack ILSVRC2012_img_train\.tar"):
        imagenet(folder / "nowhere").setup("fit")
    with pytest.raises(ValueError, match=r"has 3 class folders, not 1000.*set num_classes"):
        imagenet(folder, num_classes=1000).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"val has 0 class folders and .*3; only one.*give val_list"):
        imagenet(folder / "flat").setup("test")
    (folder / "val/n09999999").mkdir()
    with pytest.raises(ValueError, match="only one of them has n09999999"):
        imagenet(folder).setup("test")
    with pytest.raises(FileNotFoundError, match=r"val_list: no\.txt does not exist"):
        imagenet(folder, val_list="no.txt").setup("test")
    (folder / "list.txt").write_text("a.JPEG 3\n")
    with pytest.raises(ValueError, match=r"list\.txt: label\[0\]=3 is outside 0\.\.2"):
        imagenet(folder, val_list=str(folder / "list.txt")).setup("test")


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_a_method_trains_on_it(folder):
    module, data = CrossEntropy(ConvNet(3, width=2), 3), imagenet(folder, meta_size=3, val_size=3)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 1
    assert data.noise_rate == 0.0


# Tiny-ImageNet ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    wnids = [f"n{c:08}" for c in range(200)]
    for c, wnid in enumerate(wnids):
        picture(tmp_path / f"train/{wnid}/images/{wnid}_0.JPEG", seed=c, width=8, height=8)
    rows = []
    for i in range(3):
        picture(tmp_path / f"val/images/val_{i}.JPEG", seed=500 + i, width=8, height=8)
        rows.append(f"val_{i}.JPEG\t{wnids[199 - i]}\t0\t32\t44\t62\n")
    (tmp_path / "val/val_annotations.txt").write_text("".join(rows))
    picture(tmp_path / "test/images/test_0.JPEG", seed=999, width=8, height=8)
    return tmp_path


def test_tiny_imagenet(tiny):
    data = TinyImageNet(str(tiny), size=8)
    assert data.num_classes == 200
    with pytest.warns(UserWarning, match="200 train images, TinyImageNet was published with 100000"):
        data.setup("fit")
    with pytest.warns(UserWarning, match="3 test images, TinyImageNet was published with 10000"):
        data.setup("test")
    assert data.true_labels.tolist() == list(range(200))
    assert data.class_names[7] == "n00000007"
    (batch,) = data.test_dataloader()
    assert batch.y.tolist() == [199, 198, 197]
    assert batch.x.shape == (3, 3, 8, 8)
    assert data.val_dataloader() == []
    assert TinyImageNet(str(tiny)).size == 64


@pytest.mark.filterwarnings("ignore:.*was published with")
def test_what_is_wrong_with_tiny_imagenet_is_named(tiny):
    table = tiny / "val/val_annotations.txt"
    (tiny / "val/images/val_1.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"val_1\.JPEG does not exist, but .*lists it \(1 of 3 are missing\)"):
        TinyImageNet(str(tiny), size=8).setup("test")
    table.write_text("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt, line 1: 'val_0.*wnid of a folder in train/"):
        TinyImageNet(str(tiny), size=8).setup("test")
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_annotations\.txt does not exist.*tiny-imagenet-200"):
        TinyImageNet(str(tiny), size=8).setup("test")
    (tiny / "train/n00000000").rename(tiny / "away")
    with pytest.raises(ValueError, match="has 199 class folders, not 200"):
        TinyImageNet(str(tiny), size=8).setup("fit")
