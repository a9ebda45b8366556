"""ImageNet-GLT and MSCOCO-GLT, from annotation files in the layout that their generator writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from testkit.images import picture
from testkit.training import trainer_of

from lightning_perturb.cli import main
from lightning_perturb.data import MSCOCOGLT, ImageNetGLT
from lightning_perturb.data.lazy_images import Listing
from lightning_perturb.methods import CrossEntropy, MetaWeightNet
from lightning_perturb.nets import ConvNet

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {"size": 12, "load_size": 16, "batch_size": 16}
pytestmark = pytest.mark.filterwarnings("ignore:.*was published with")
# images of each attribute of classes 0 and 1 (ImageNet-GLT: the others have one); class 2 is not in validation
SIZES = {"train": (5, 3, 2), "val": (3, 2, 1), "test_lt": (1, 1, 1), "test_bl": (2, 1, 1), "test_bbl": (2, 2, 2)}


def split_of(sizes, classes, name, path):
    """A split as written: dicts by image of label, frequency and attribute."""
    split = {"label": {}, "frequency": {}, "attribute": {}}
    for c in classes:
        for attribute, number in enumerate(sizes):
            for i in range(number):
                key = name(c, attribute, i)
                path(key)
                split["label"][key] = c
                split["frequency"][key] = 0
                split["attribute"][key] = attribute
    return split


@pytest.fixture
def coco(tmp_path):
    for folder in ("coco_glt", "coco_cbl"):
        tree = {"cat2id": {f"cat {c}": c for c in range(29)}, "id2cat": {c: f"cat {c}" for c in range(29)}}
        tree["key2path"] = {}
        for number, (split, sizes) in enumerate(SIZES.items()):
            written = split_of(
                sizes,
                [0, 1] if split == "val" else [0, 1, 2],
                lambda c, a, i, split=split: f"{split}{c}{a}{i}",
                lambda key, number=number, folder=folder: picture(
                    tmp_path / f"{folder}/images/{key}.jpg", seed=number * 1000 + int(key[-3:]), width=16, height=16
                ),
            )
            # the machine that wrote them had them elsewhere
            written["path"] = {key: f"/data4/coco_glt/{folder}/images/{key}.jpg" for key in written["label"]}
            written["attribute_score"], written["attribute_dist"] = {}, {}
            tree[split] = written
        (tmp_path / folder / "annotation.json").write_text(json.dumps(tree))
    return tmp_path


@pytest.mark.parametrize(
    ("protocol", "folder", "test"),
    [("CLT", "coco_glt", "test_bl"), ("GLT", "coco_glt", "test_bbl"), ("ALT", "coco_cbl", "test_bbl")],
)
def test_a_protocol_is_a_pair_of_sets(coco, protocol, folder, test):
    data = MSCOCOGLT(str(coco), protocol=protocol, **SMALL)
    data.setup()
    assert data.num_classes == 29
    assert data.class_names[28] == "cat 28"
    assert data.class_counts[:4].tolist() == [10, 10, 10, 0]
    assert data._train[0].path(0) == str(coco / folder / "images/train000.jpg")
    assert data._test[0].path(0) == str(coco / folder / f"images/{test}000.jpg")
    assert len(data._test[1]) == 3 * sum(SIZES[test])
    assert data.group_counts[:3].tolist() == [[5, 3, 2]] * 3
    assert data.domain_names == ["frequent", "medium", "rare"]
    (batch,) = data.test_dataloader()
    expected = [a for _ in range(3) for a, number in enumerate(SIZES[test]) for _ in range(number)]
    assert batch.extra["domain"].tolist() == expected
    assert batch.x.shape[1:] == (3, 12, 12)
    (val,) = data.val_dataloader()
    assert len(val) == 2 * sum(SIZES["val"])
    assert data.mean == (0.473, 0.429, 0.370)
    assert data.augment.area == (0.5, 1.0)


def test_clean_samples_are_balanced_and_leave_the_other_splits(coco):
    data, whole = MSCOCOGLT(str(coco), meta_per_group=2, **SMALL), MSCOCOGLT(str(coco), **SMALL)
    data.setup("fit")
    whole.setup("fit")
    labels, attributes = data.given_labels[data.meta_index], data.domains[data.meta_index]
    counts = np.zeros((3, 3), dtype=int)
    np.add.at(counts, (labels, attributes), 1)
    # as many as validation has; the class that it lacks gives a training image
    assert counts[:2].tolist() == [[2, 2, 1], [2, 2, 1]]
    assert counts[2].sum() == 1
    assert len(data.train_index) == len(whole.train_index) - 1
    files = [data._train[0].path(i) for i in range(len(data._train[1]))]
    held = [data._val[0].path(i) for i in range(len(data._val[1]))]
    assert len(files + held) == len(set(files + held)) == 30 + 12
    assert [int(path[-6]) for path in files] == data.domains.tolist()
    assert [int(path[-7]) for path in files] == data.given_labels.tolist()
    other = MSCOCOGLT(str(coco), meta_per_group=2, seed=1, **SMALL)
    other.setup("fit")
    assert [other._train[0].path(i) for i in other.meta_index] == [files[i] for i in data.meta_index]


@pytest.fixture
def three(coco, monkeypatch):
    """A benchmark of the three classes that have images."""
    monkeypatch.setattr(MSCOCOGLT, "classes", 3)
    for path in coco.glob("*/annotation.json"):
        tree = json.loads(path.read_text())
        path.write_text(json.dumps({**tree, "id2cat": {c: f"cat {c}" for c in range(3)}}))
    return coco


def test_methods_train_on_it_and_are_evaluated_by_attribute(three):
    data = MSCOCOGLT(str(three), meta_per_group=2, **SMALL)
    for method in (CrossEntropy, MetaWeightNet):
        module, trainer = method(ConvNet(3, width=2), 3), trainer_of(max_epochs=1)
        trainer.fit(module, datamodule=data)
        (found,) = trainer.test(module, datamodule=data, verbose=False)
        assert {"test/acc", "test/macro_precision", "test/group_acc/cat 2/rare"} <= set(found)


def test_a_meta_learned_method_trains_from_the_command_line(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "-c", str(CONFIGS / "data/mscoco_glt.yaml"), "-c", str(CONFIGS / "methods/meta_weight_net.yaml")]
    data = (f"root={three}", "size=12", "load_size=16", "num_workers=0", "batch_size=16", "meta_size=0")
    words += [f"--data.init_args.{word}" for word in data]
    words += ["--model.init_args.net=ConvNet", "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"]
    main([*words, "--trainer.enable_progress_bar=false"])


def test_images_of_imagenet_are_found_by_the_end_of_their_path(tmp_path):
    tree = {"cat2id": {}, "id2cat": {str(c): f"n{c:08}" for c in range(1000)}}
    for split in SIZES:
        paths = [f"/data4/imagenet/ILSVRC/Data/CLS-LOC/train/n{c:08}/n{c:08}_{split}.JPEG" for c in range(1000)]
        # the generator writes labels as words
        tree[split] = {
            "label": {path: str(c) for c, path in enumerate(paths)},
            "frequency": dict.fromkeys(paths, 0),
            "attribute": {path: c % 3 for c, path in enumerate(paths)},
        }
    (tmp_path / "imagenet_sup_intra_lt_inter_lt.json").write_text(json.dumps(tree))
    data = ImageNetGLT(str(tmp_path / "imagenet"), annotations=str(tmp_path), **SMALL)
    with pytest.warns(UserWarning, match=r"1000 val images, ImageNetGLT was published with 30000"):
        listing = data.listing("train")
    assert listing.paths[17] == str(tmp_path / "imagenet/train/n00000017/n00000017_train.JPEG")
    assert listing.labels.tolist() == list(range(1000))
    assert listing.domains.tolist() == [c % 3 for c in range(1000)]
    assert data.listing("test").paths[0].endswith("_test_bbl.JPEG")
    assert data.class_names[999] == "n00000999"
    with pytest.raises(FileNotFoundError, match=r"n00000000_train\.JPEG does not exist, but .*\(train\) lists it"):
        data.setup("fit")
    clt = ImageNetGLT(str(tmp_path), protocol="CLT")
    assert clt.listing("test").paths[0] == str(tmp_path / "train/n00000000/n00000000_test_bl.JPEG")
    with pytest.raises(FileNotFoundError, match=r"inter_bl\.json does not exist.*imagenet_glt_generation\.py"):
        ImageNetGLT(str(tmp_path), protocol="ALT").setup("fit")


def test_what_is_wrong_is_named(coco):
    with pytest.raises(ValueError, match="protocol='XLT' is unknown"):
        MSCOCOGLT(str(coco), protocol="XLT")
    path = coco / "coco_glt/annotation.json"
    tree = json.loads(path.read_text())
    key = next(iter(tree["train"]["label"]))
    for parts, message in (
        ({"id2cat": {"0": "a"}}, "has 1 classes where 29 were published"),
        ({"train": {"label": {key: 0}, "attribute": {}}}, r"the split 'train' does not give each image.*KeyError"),
        ({"train": {"label": {key: 29}, "attribute": {key: 0}}}, r"train: label\[0\]=29 is outside 0\.\.28"),
        ({"val": {"label": {key: 0}, "attribute": {key: 3}}}, r"val: attribute\[0\]=3 is outside 0\.\.2"),
    ):
        path.write_text(json.dumps({**tree, **parts}))
        with pytest.raises(ValueError, match=message):
            MSCOCOGLT(str(coco)).setup("fit")
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"is no annotation file with id2cat, cat2id and splits.*mscoco_glt_crop\.py"):
        MSCOCOGLT(str(coco)).setup("fit")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"annotation\.json does not exist"):
        MSCOCOGLT(str(coco)).setup("fit")


def test_the_last_training_image_of_a_class_is_not_taken(monkeypatch):
    monkeypatch.setattr(MSCOCOGLT, "classes", 2)
    train = Listing(["a", "b", "c"], np.array([0, 0, 1]), "x", np.zeros(3, np.int64))
    none = Listing([], np.zeros(0, np.int64), "x", np.zeros(0, np.int64))
    parts = MSCOCOGLT("root", meta_per_group=1)._with_meta_part({"train": train, "val": none})
    assert parts["meta"].labels.tolist() == [0]
    assert parts["train"].labels.tolist() == [0, 1]
