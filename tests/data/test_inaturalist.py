"""iNaturalist 2017 in its published layout."""

import json

import pytest
import torch
from testkit.images import picture

from lightning_perturb.data import INaturalist2017

SPECIES = 5089


@pytest.fixture
def folder(tmp_path):
    for split, number in (("train", 8), ("val", 4)):
        # ids of categories are neither sorted nor counted from 0 here: their order is what counts
        tree = {
            "images": [], "annotations": [],
            "categories": [{"id": 2 * c, "name": f"species {c}"} for c in reversed(range(SPECIES))],
        }  # fmt: skip
        for i in range(number):
            name = f"train_val_images/Aves/species {i}/{split}{i}.jpg"
            picture(tmp_path / name, seed=i)
            tree["images"].append({"id": 7 * i + 1, "file_name": name, "width": 40, "height": 30})
            tree["annotations"].insert(0, {"id": i, "image_id": 7 * i + 1, "category_id": 2 * (SPECIES - 1 - i)})
        (tmp_path / f"{split}2017.json").write_text(json.dumps(tree))
    return tmp_path


def change(folder, **parts):
    path = folder / "train2017.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def test_files_and_species(folder):
    data = INaturalist2017(str(folder), size=16, load_size=20)
    assert data.num_classes == SPECIES
    with pytest.warns(UserWarning, match="8 train images, INaturalist2017 was published with 579184"):
        data.setup("fit")
    assert data.true_labels.tolist() == [SPECIES - 1 - i for i in range(8)]
    assert data.class_names[SPECIES - 1] == f"species {SPECIES - 1}"
    with pytest.warns(UserWarning, match="4 test images"):
        data.setup("test")
    assert torch.cat([batch.y for batch in data.test_dataloader()]).tolist() == [SPECIES - 1 - i for i in range(4)]
    assert data.read("val") is None
    assert data.mean == (0.466, 0.471, 0.380)


def test_what_does_not_fit_is_named(folder):
    data = INaturalist2017(str(folder))
    with pytest.raises(FileNotFoundError, match=r"other\.json does not exist. Put train2017\.json"):
        INaturalist2017(str(folder), train_json="other.json").setup("fit")
    note = {"id": 99, "image_id": 1, "category_id": 0}
    tree = json.loads((folder / "train2017.json").read_text())
    for parts, message in (
        ({"annotations": [*tree["annotations"], note]}, "gives image 1 two species"),
        ({"annotations": tree["annotations"][1:]}, "gives image 50 no species"),
        ({"annotations": [{**note, "category_id": 1}]}, "annotates category 1 that it does not list"),
        ({"annotations": [{**note, "image_id": 2}]}, "annotates an image that it does not list"),
        ({"categories": tree["categories"][:-1]}, "has 5088 categories where 5089 were published"),
        ({"images": [{"id": 1}]}, r"no annotation file .* \(KeyError: 'file_name'\)"),
    ):
        change(folder, **{**tree, **parts})
        with pytest.raises(ValueError, match=message):
            data.setup("fit")
    (folder / "train2017.json").write_text("{")
    with pytest.raises(ValueError, match=r"is no annotation file .*\(JSONDecodeError"):
        data.setup("fit")
