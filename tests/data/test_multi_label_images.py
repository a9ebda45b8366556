"""VOC-MLT, COCO-MLT and MS-COCO in their published layouts."""

import json
import pickle

import numpy as np
import pytest
import torch
from testkit.images import picture
from testkit.training import trainer_of

from lightning_perturb.data import COCOMLT, MSCOCO, VOCMLT, MissingLabels
from lightning_perturb.methods import RBCELPL
from lightning_perturb.nets import ConvNet

SMALL = {"size": 16}
VOC = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip

# VOC ----------------------------------------------------------------------------------------------------------------


def annotate(path, objects):
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = "<part><name>head</name></part>"
    items = [
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult>{parts}</object>"
        for name, difficult in objects
    ]
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{''.join(items)}</annotation>")


@pytest.fixture
def voc(tmp_path):
    """Six training images whose list leaves one of seven out, and three test images."""
    for year, names in (("2012", [f"2008_{i:06}" for i in range(7)]), ("2007", [f"{i:06}" for i in range(3)])):
        for i, name in enumerate(names):
            picture(tmp_path / f"VOC{year}/JPEGImages/{name}.jpg", seed=i)
            objects = [(VOC[i], False), ("person", True), (VOC[i], True)]
            annotate(tmp_path / f"VOC{year}/Annotations/{name}.xml", objects)
    (tmp_path / "VOC2007/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "VOC2007/ImageSets/Main/test.txt").write_text("000000\n000001\n000002\n")
    (tmp_path / "longtail2012").mkdir()
    (tmp_path / "longtail2012/img_id.txt").write_text("".join(f"2008_{i:06}\n" for i in (6, 5, 3, 2, 1, 0)))
    return tmp_path


def several(*classes):
    return np.isin(np.arange(20), [VOC.index(name) if isinstance(name, str) else name for name in classes]).astype(int)


def test_voc_mlt(voc):
    data = VOCMLT(str(voc), **SMALL)
    assert data.num_classes == 20
    assert data.multi_label
    with pytest.warns(UserWarning, match="6 train images, VOCMLT was published with 1142") as told:
        data.setup("fit")
    assert any("other numbers of positives" in str(w.message) for w in told)
    # in the order of the list; difficult objects count, parts do not
    expected = np.stack([several(i, "person") for i in (6, 5, 3, 2, 1, 0)])
    np.testing.assert_array_equal(data.true_labels, expected)
    assert data.class_counts[VOC.index("person")] == 6
    assert data.class_names[14] == "person"
    with pytest.warns(UserWarning, match="3 test images"):
        data.setup("test")
    (batch,) = list(data.test_dataloader())
    assert torch.equal(batch.y, torch.from_numpy(np.stack([several(i, "person") for i in range(3)])).float())
    assert batch.x.shape == (3, 3, 16, 16)
    assert data.read("val") is None


def test_published_counts_give_no_warning(voc, monkeypatch, recwarn):
    monkeypatch.setattr(VOCMLT, "published", {"train": 6, "test": 3})
    monkeypatch.setattr(VOCMLT, "published_counts", tuple(np.bincount([6, 5, 3, 2, 1, 0] + [14] * 6, minlength=20)))
    VOCMLT(str(voc), **SMALL).setup()
    assert not [w for w in recwarn if w.category is UserWarning]


@pytest.mark.filterwarnings("ignore:.*published.*")
def test_a_method_trains_on_them(voc):
    for i, name in enumerate(("2008_000000", "2008_000001", "2008_000002")):
        annotate(voc / f"VOC2012/Annotations/{name}.xml", [(VOC[c], False) for c in range(6 * i, 20)])
    annotate(voc / "VOC2012/Annotations/2008_000003.xml", [(name, False) for name in VOC])
    data = VOCMLT(str(voc), batch_size=4, **SMALL)
    trainer = trainer_of(max_epochs=1)
    module = RBCELPL(ConvNet(20, width=4), 20)
    trainer.fit(module, datamodule=data)
    assert torch.equal(module.class_counts, torch.from_numpy(data.class_counts))
    (found,) = trainer.test(module, datamodule=data, verbose=False)
    assert 0 < found["test/mAP"] <= 1
    noisy = VOCMLT(str(voc), label_noise=MissingLabels(0.5), **SMALL)
    noisy.setup("fit")
    assert 0 < noisy.noise_rate < 1


@pytest.mark.filterwarnings("ignore:.*published.*")
def test_nothing_of_the_image_is_lost_in_evaluation(voc):
    data = VOCMLT(str(voc), **SMALL)
    data.setup("fit")
    assert data.fit == "stretch"
    assert data.load_size == 16
    served = torch.cat([batch.x for batch in data.score_dataloader()])
    assert torch.equal(served, data.raw_inputs(np.arange(6)))


def test_voc_names_what_is_missing(voc):
    listing = voc / "longtail2012/img_id.txt"
    for change, message in (
        (
            lambda: listing.write_text("2008_000099\n"),
            r"Annotations/2008_000099\.xml does not exist. Unpack Pascal VOC",
        ),
        (lambda: listing.write_bytes(pickle.dumps(["2008_000001"])), "no text file with one image id.*pickle is not"),
        (lambda: listing.write_text("a b\n"), "no text file with one image id on each line"),
        (lambda: listing.write_text("\n"), "no text file with one image id on each line"),
        (lambda: listing.unlink(), r"image_list: the list of images .*img_id\.txt does not exist. Fetch it"),
    ):
        change()
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            VOCMLT(str(voc), **SMALL).setup("fit")
    (voc / "VOC2007/ImageSets/Main/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"root: the list of images .*test\.txt does not exist"):
        VOCMLT(str(voc), **SMALL).setup("test")


def test_voc_annotations_that_do_not_fit(voc):
    path = voc / "VOC2012/Annotations/2008_000006.xml"
    annotate(path, [("unicorn", False)])
    with pytest.raises(ValueError, match=r"2008_000006\.xml has an object of the class 'unicorn'"):
        VOCMLT(str(voc), **SMALL).setup("fit")
    path.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"2008_000006\.xml is no XML file"):
        VOCMLT(str(voc), **SMALL).setup("fit")
    annotate(path, [("cat", False)])
    (voc / "VOC2012/JPEGImages/2008_000006.jpg").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2008_000006\.jpg does not exist, but .*img_id\.txt lists it \(1 of 6"
    ):
        VOCMLT(str(voc), **SMALL).setup("fit")


# COCO ---------------------------------------------------------------------------------------------------------------

# as in the real files: 80 categories with gaps between their ids
IDS = [c for c in range(1, 91) if c not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def coco_file(folder, year, split, labels):
    """An annotation file with some crowded, ignored and empty annotations, and its images."""
    tree = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"thing {c}"} for c in reversed(IDS)]}
    for i, places in enumerate(labels):
        image, name = 1000 - 10 * i, f"{i:012}.jpg"
        picture(folder / f"{split}{year}/{name}", seed=i)
        tree["images"].append({"id": image, "file_name": name, "height": 30, "width": 40})
        for place in places:
            box = {"image_id": image, "category_id": IDS[place], "bbox": [0, 0, 5, 5], "area": 25.0, "iscrowd": i % 2}
            tree["annotations"].insert(0, {**box, "segmentation": [[0.0, 1.0, 2.0]]})
    # what COCO-MLT does not count: no area, a thin box, an ignored one
    first = {"image_id": 1000, "category_id": IDS[79], "bbox": [0, 0, 5, 5], "area": 25.0}
    tree["annotations"] += [{**first, "area": 0}, {**first, "bbox": [0, 0, 0.5, 5]}, {**first, "ignore": 1}]
    path = folder / f"annotations/instances_{split}{year}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))


@pytest.fixture
def coco(tmp_path):
    for year in ("2014", "2017"):
        coco_file(tmp_path, year, "train", [[0, 1], [2], [], [0, 78], [5]])
        coco_file(tmp_path, year, "val", [[3], [], [0, 4]])
    (tmp_path / "longtail2017").mkdir()
    (tmp_path / "longtail2017/img_id.pkl").write_text("970\n1000\n960\n")
    return tmp_path


def rows(*places):
    return np.stack([np.isin(np.arange(80), row).astype(int) for row in places])


@pytest.mark.filterwarnings("ignore:.*published.*")
def test_ms_coco(coco):
    data = MSCOCO(str(coco), **SMALL)
    assert data.num_classes == 80
    data.setup()
    # the third image has nothing on it; a crowd and a small thing are things
    np.testing.assert_array_equal(data.true_labels, rows([0, 1, 79], [2], [0, 78], [5]))
    (batch,) = list(data.test_dataloader())
    np.testing.assert_array_equal(batch.y.numpy(), rows([3, 79], [0, 4]))
    assert data.class_names[:2] == ["thing 1", "thing 2"]
    assert data.class_names[11] == "thing 13"
    files = [data._train[0].path(i)[-16:] for i in range(4)]
    assert files == [f"{i:012}.jpg" for i in (0, 1, 3, 4)]
    assert MSCOCO(str(coco)).size == 448


@pytest.mark.filterwarnings("ignore:.*published.*")
def test_coco_mlt(coco):
    data = COCOMLT(str(coco), **SMALL)
    data.setup()
    # ids 970, 1000 and 960 are the images 3, 0 and 4; every validation image is a test image
    np.testing.assert_array_equal(data.true_labels, rows([0, 78], [0, 1], [5]))
    (batch,) = list(data.test_dataloader())
    np.testing.assert_array_equal(batch.y.numpy(), rows([3], [], [0, 4]))
    assert data._train[0].path(0).endswith("train2017/000000000003.jpg")
    other = coco / "list.txt"
    other.write_text("990\n")
    chosen = COCOMLT(str(coco), image_list=str(other), **SMALL)
    chosen.setup("fit")
    np.testing.assert_array_equal(chosen.true_labels, rows([2]))


def test_coco_warns_of_other_numbers(coco):
    with pytest.warns(UserWarning, match=r"img_id\.pkl gives 3 train images, COCOMLT was published with 1909"):
        COCOMLT(str(coco), **SMALL).setup("fit")
    with pytest.warns(UserWarning, match=r"instances_train2014\.json gives 4 train images, MSCOCO .* 82081"):
        MSCOCO(str(coco), **SMALL).setup("fit")


def test_coco_names_what_is_missing(coco):
    listing = coco / "longtail2017/img_id.pkl"
    for change, message in (
        (lambda: listing.write_text("970\n5\n"), r"img_id\.pkl, line 2: '5' is no image id of .*instances_train2017"),
        (lambda: listing.write_text("cat\n"), "line 1: 'cat' is no image id"),
        (lambda: listing.write_bytes(pickle.dumps([970])), "no text file with one image id"),
        (lambda: listing.unlink(), r"image_list: the list of images .*img_id\.pkl does not exist"),
        (
            lambda: (coco / "annotations/instances_train2017.json").unlink(),
            r"does not exist. Put annotations/instances_t",
        ),
    ):
        change()
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            COCOMLT(str(coco), **SMALL).setup("fit")
    (coco / "train2014/000000000000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train2014/000000000000\.jpg does not exist, but .*\(1 of 4"):
        MSCOCO(str(coco), **SMALL).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"nowhere/annotations/instances_train2014\.json does not exist"):
        MSCOCO("nowhere").setup("fit")
