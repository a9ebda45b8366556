"""Waterbirds and CelebA in their published layouts."""

import csv

import numpy as np
import pytest
import torch
from testkit.images import picture

from lightning_perturb.data import CelebA, Waterbirds

PARTS = ("train", "val", "test")
BIRDS = 12


@pytest.fixture
def birds(tmp_path):
    """Bird i is of kind i // 2 % 2 at place i % 2, of part i // 4."""
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img_id", "img_filename", "y", "split", "place", "place_filename"])
        for i in reversed(range(BIRDS)):
            name = f"{i:03d}.Bird, so called/{i}.jpg"
            picture(tmp_path / name, seed=i, width=50, height=30)
            writer.writerow([i + 1, name, i // 2 % 2, i // 4, i % 2, f"/b/bamboo_forest/{i}.jpg"])
    return tmp_path


def test_birds(birds):
    data = Waterbirds(str(birds), size=16, load_size=20, batch_size=4)
    with pytest.warns(UserWarning, match="4 train images, Waterbirds was published with 4795"):
        data.setup()
    assert data.true_labels.tolist() == [1, 1, 0, 0]
    assert data.domains.tolist() == [1, 0, 1, 0]
    assert data.facts.group_counts.tolist() == [[1, 1], [1, 1]]
    assert (data.class_names, data.domain_names) == (["landbird", "waterbird"], ["land", "water"])
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        (batch,) = loader
        assert batch.x.shape == (4, 3, 16, 16)
        groups = sorted(zip(batch.y.tolist(), batch.extra["domain"].tolist(), strict=True))
        assert groups == [(0, 0), (0, 1), (1, 0), (1, 1)]
    # training sees what evaluation sees: the middle
    (batch,) = data.train_dataloader()
    (shown,) = data.score_dataloader()
    assert torch.equal(batch.x[batch.index.argsort()], shown.x)


def test_birds_are_stretched_as_published(birds):
    from PIL import Image

    data = Waterbirds(str(birds), size=16, load_size=20)
    with pytest.warns(UserWarning, match="published"):
        data.setup("fit")
    path = birds / "003.Bird, so called/3.jpg"
    expected = np.asarray(Image.open(path).resize((20, 20), Image.Resampling.BILINEAR))[2:18, 2:18]
    assert torch.equal(next(iter(data.score_dataloader())).x[0], torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert (Waterbirds().size, Waterbirds().load_size) == (224, 256)


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("place,", "background,", r"metadata\.csv has no column 'place', but img_id"),
        ("12,", "12,0,", r"metadata\.csv is no table: it is empty, or row 1 is not as long"),
        (",1,2,1,", ",2,2,1,", r"numbers in the column 'y' that are not in 0\.\.1"),
        (",1,2,1,", ",1,three,1,", r"column 'split' that is no whole number"),
    ],
)
def test_other_layouts_of_birds_are_named(birds, old, new, fault):
    change(birds / "metadata.csv", old, new)
    with pytest.raises(ValueError, match=fault):
        Waterbirds(str(birds)).setup("fit")


def test_missing_files_are_named(birds):
    with pytest.raises(FileNotFoundError, match=r"metadata\.csv does not exist. Unpack waterbird_complete95"):
        Waterbirds("nowhere").setup("fit")
    (birds / "003.Bird, so called/3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.jpg does not exist, but .*metadata\.csv lists it"):
        Waterbirds(str(birds)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"list_attr_celeba\.csv does not exist. Put list_attr_celeba and"):
        CelebA("nowhere").setup("fit")


FACES = 12
NAMES = ["Bald", "Blond_Hair", "Male"]


def attributes(i):
    return [-1, 1 if i // 2 % 2 else -1, 1 if i % 2 else -1]


@pytest.fixture(params=["csv", "nested", "txt"])
def faces(request, tmp_path):
    nested = "img_align_celeba/" * (1 + (request.param == "nested"))
    for i in range(FACES):
        picture(tmp_path / f"{nested}{i:06d}.jpg", seed=i, width=30, height=50)
    if request.param == "txt":
        rows = [f"{i:06d}.jpg " + " ".join(f"{a:2d}" for a in attributes(i)) for i in range(FACES)]
        (tmp_path / "list_attr_celeba.txt").write_text("\n".join([str(FACES), " ".join(NAMES) + " ", *rows]) + "\n")
        parts = [f"{i:06d}.jpg {i // 4}" for i in reversed(range(FACES))]
        # with an empty line at the end
        (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts) + "\n\n")
    else:
        rows = [",".join(map(str, [f"{i:06d}.jpg", *attributes(i)])) for i in range(FACES)]
        (tmp_path / "list_attr_celeba.csv").write_text("\n".join([",".join(["image_id", *NAMES]), *rows]) + "\n")
        parts = [f"{i:06d}.jpg,{i // 4}" for i in range(FACES)]
        (tmp_path / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *parts]))
    return tmp_path


def test_faces(faces):
    data = CelebA(str(faces), size=16, load_size=16, batch_size=4)
    with pytest.warns(UserWarning, match="4 train images, CelebA was published with 162770"):
        data.setup()
    assert data.true_labels.tolist() == [0, 0, 1, 1]
    assert data.domains.tolist() == [0, 1, 0, 1]
    assert data.class_names == ["not Blond_Hair", "Blond_Hair"]
    assert data.domain_names == ["not Male", "Male"]
    for loader in (data.val_dataloader(), data.test_dataloader()):
        (batch,) = loader
        assert (batch.y.tolist(), batch.extra["domain"].tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
        assert batch.x.shape == (4, 3, 16, 16)
    other = CelebA(str(faces), target="Male", domain="Blond_Hair", size=16, load_size=16)
    with pytest.warns(UserWarning, match="published"):
        other.setup("fit")
    assert other.true_labels.tolist() == [0, 1, 0, 1]


def test_faces_are_cropped_as_published(tmp_path):
    """The middle 178 x 178 of 178 x 218 as 224 x 224, but for the rounding of a pixel."""
    from PIL import Image

    from lightning_perturb.data.image_files import decode_image

    # a ramp, which the order of crop and resize cannot move far
    ramp = (np.add.outer(np.arange(218), np.arange(178)) // 2).astype(np.uint8)[..., None].repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "face.png")
    published = Image.fromarray(ramp).crop((0, 20, 178, 198)).resize((224, 224), Image.Resampling.BILINEAR)
    found = decode_image(str(tmp_path / "face.png"), 224, "crop").transpose(1, 2, 0).astype(int)
    assert np.abs(found - np.asarray(published).astype(int))[2:-2, 2:-2].max() <= 1
    assert (CelebA().size, CelebA().load_size, CelebA().fit) == (224, 224, "crop")


def test_other_layouts_of_faces_are_named(faces):
    with pytest.raises(ValueError, match=r"has no attribute 'Hairy'. It has Bald, Blond_Hair, Male"):
        CelebA(str(faces), domain="Hairy").setup("fit")
    with pytest.raises(ValueError, match="are the same attribute"):
        CelebA(target="Male")
    suffix = "txt" if (faces / "list_attr_celeba.txt").is_file() else "csv"
    change(faces / f"list_eval_partition.{suffix}", "000004", "000099")
    with pytest.raises(ValueError, match=r"list_eval_partition\.\w+ does not name 000004\.jpg \(1 images"):
        CelebA(str(faces)).setup("fit")
