"""Sets with a label noise of their own, in their published layouts: Clothing1M, ANIMAL-10N, Food-101N."""

import numpy as np
import pytest
import torch
from testkit.images import picture
from testkit.training import trainer_of

from lightning_perturb.callbacks import Recorder
from lightning_perturb.cli import main
from lightning_perturb.data import Animal10N, Balanced, Clothing1M, Food101N
from lightning_perturb.methods import MetaWeightNet
from lightning_perturb.nets import ConvNet

SMALL = {"size": 16, "load_size": 20, "batch_size": 8}
pytestmark = pytest.mark.filterwarnings("ignore:.*was published with")

# Clothing1M ---------------------------------------------------------------------------------------------------------

LISTS = {"noisy_train": 42, "clean_train": 14, "clean_val": 14, "clean_test": 14}


@pytest.fixture
def clothing(tmp_path):
    """Every image also has a label of the other kind, as many have in the release."""
    tables = {"noisy": [], "clean": []}
    number = 0
    for name, count in LISTS.items():
        keys = []
        for i in range(count):
            key = f"images/{number % 10}/{number}.jpg"
            picture(tmp_path / key, seed=number, width=22, height=20)
            keys.append(f"{key}\n")
            tables["noisy"].append(f"{key} {i % 14}\n")
            tables["clean"].append(f"{key} {(i + 1) % 14}\n")
            number += 1
        (tmp_path / f"{name}_key_list.txt").write_text("".join(keys))
    for name, lines in tables.items():
        # the tables are in no order
        (tmp_path / f"{name}_label_kv.txt").write_text("".join(reversed(lines)))
    return tmp_path


def clothing1m(folder, **options):
    return Clothing1M(str(folder), **{**SMALL, **options})


def test_clothing_trains_on_noisy_and_is_tested_on_clean_labels(clothing):
    data = clothing1m(clothing)
    data.setup()
    assert data.given_labels[:42].tolist() == [i % 14 for i in range(42)]
    assert data.meta_index.tolist() == list(range(42, 56))
    assert data.given_labels[42:].tolist() == [(i + 1) % 14 for i in range(14)]
    assert data._train[0].path(11).endswith("images/1/11.jpg")
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert torch.cat([batch.y for batch in loader]).tolist() == [(i + 1) % 14 for i in range(14)]
    assert data.class_names[3] == "chiffon"
    assert np.isnan(data.noise_rate)
    assert data.true_labels is None
    # a copy whose images lie beside the lists is served alike
    whole = data.raw_inputs([0, 41, 50])
    for number in range(10):
        (clothing / f"images/{number}").rename(clothing / str(number))
    (clothing / "images").rmdir()
    moved = clothing1m(clothing)
    moved.setup("fit")
    assert torch.equal(moved.raw_inputs([0, 41, 50]), whole)


def test_parts_of_clothing(clothing):
    part = clothing1m(clothing, train_size=14, meta_size=14)
    part.setup("fit")
    assert part.class_counts.tolist() == [1] * 14
    assert len(part.meta_index) == 14
    balanced = clothing1m(clothing, imbalance=Balanced(2))
    balanced.setup("fit")
    assert balanced.class_counts.tolist() == [2] * 14


def test_how_clothing_was_published(clothing):
    with pytest.warns(UserWarning, match="42 train images, Clothing1M was published with 1000000"):
        clothing1m(clothing).setup("fit")
    with pytest.warns(UserWarning, match="14 test images, Clothing1M was published with 10526"):
        clothing1m(clothing).setup("test")


def test_what_is_wrong_with_clothing_is_named(clothing):
    labels = clothing / "clean_label_kv.txt"
    text = labels.read_text()
    for wrong, message in (
        ("images/0/0.jpg\n", r"clean_label_kv\.txt, line 1: 'images/0/0\.jpg' is not 'images/<folder>/<name>\.jpg"),
        ("images/0/0.jpg 3\n", r"clean_train_key_list\.txt lists images/2/42\.jpg, which has no label in clean_label"),
        (text.replace(" 13\n", " 14\n"), r"clean_label_kv\.txt: label\[12\]=14 is outside 0\.\.13"),
    ):
        labels.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            clothing1m(clothing).setup("fit")
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"clean_label_kv\.txt does not exist\. Put the annotation files"):
        clothing1m(clothing).setup("fit")
    with pytest.raises(ValueError, match="labels_known=False says that nobody knows"):
        clothing1m(clothing, val_labels="clean")


def test_a_meta_learned_method_reads_its_clean_images(clothing, tmp_path):
    data, seen = clothing1m(clothing, meta_batch_size=7), []

    class Watching(MetaWeightNet):
        def training_step(self, batch, batch_idx):
            seen.append((batch["train"].index, batch["meta"].index, batch["meta"].y))
            return super().training_step(batch, batch_idx)

    recorder = Recorder(dirpath=tmp_path)
    trainer = trainer_of(max_epochs=1, callbacks=[recorder])
    trainer.fit(Watching(ConvNet(14, width=2), 14), datamodule=data)
    train, meta, labels = (torch.cat(part) for part in zip(*seen, strict=True))
    assert sorted(train.tolist()) == list(range(42))
    assert set(meta.tolist()) == set(range(42, 56))
    assert torch.equal(labels, (meta - 42 + 1) % 14)
    assert not {"train/acc_true", "train/memorised"} & set(trainer.callback_metrics)


def test_clothing_trains_from_the_command_line(clothing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--data", "Clothing1M", f"--data.root={clothing}", "--data.size=16", "--data.load_size=20"]
    words += ["--data.fit=stretch", "--data.batch_size=20", "--model", "MetaWeightNet", "--model.net", "ConvNet"]
    words += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    main([*words, "--model.net.init_args.width=2", "--trainer.enable_progress_bar=false"])


# ANIMAL-10N ---------------------------------------------------------------------------------------------------------


def test_animals(tmp_path):
    for i in range(20):
        picture(tmp_path / f"raw_image_ver/training/{i % 10}_{i:05}.jpg", seed=i, width=16, height=16)
    for i in range(10):
        picture(tmp_path / f"raw_image_ver/testing/{i}_{i:05}.jpg", seed=50 + i, width=16, height=16)
    data = Animal10N(str(tmp_path), size=16, load_size=16)
    with pytest.warns(UserWarning, match="20 train images, Animal10N was published with 50000"):
        data.setup()
    assert data.given_labels.tolist() == [c for c in range(10) for _ in range(2)]
    (batch,) = data.test_dataloader()
    assert batch.y.tolist() == list(range(10))
    assert data.class_names[8:] == ["hamster", "guinea pig"]
    assert data.true_labels is None
    assert next(iter(data.train_dataloader())).x.shape[1:] == (3, 16, 16)
    # the folder itself is as good
    inside = Animal10N(str(tmp_path / "raw_image_ver"), size=12, load_size=16)
    inside.setup("fit")
    assert next(iter(inside.train_dataloader())).x.shape[1:] == (3, 12, 12)
    picture(tmp_path / "raw_image_ver/training/cat_1.jpg", seed=3)
    with pytest.raises(ValueError, match=r"cat_1\.jpg does not begin with its class"):
        Animal10N(str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"training has no images.*raw_image_ver\.zip"):
        Animal10N(str(tmp_path / "raw_image_ver/testing")).setup("fit")


# Food-101N ----------------------------------------------------------------------------------------------------------

DISHES = [f"dish_{c:03}" for c in range(101)]


@pytest.fixture
def food(tmp_path):
    """Four images of the first dishes; of the first two of each, people have looked at one list each."""
    meta = tmp_path / "Food-101N_release/meta"
    meta.mkdir(parents=True)
    (meta / "classes.txt").write_text("class_name\n" + "\n".join(reversed(DISHES)) + "\n")
    listed, looked_at = ["class_name/key"], {"train": [], "val": []}
    for c in range(6):
        for i in range(4):
            key = f"{DISHES[c]}/{c}{i}abc.jpg"
            picture(tmp_path / "Food-101N_release/images" / key, seed=10 * c + i)
            listed.append(key)
            if i < 2:
                looked_at[("train", "val")[i]].append(f"{key}\t{int(c != 2)}")
    (meta / "imagelist.tsv").write_text("\n".join(listed) + "\n")
    for name, lines in looked_at.items():
        header = "class_name/key\tverification_label"
        (meta / f"verified_{name}.tsv").write_text("\n".join([header, *lines]) + "\n")
    keys = [f"{DISHES[c]}/{c}" for c in range(3)]
    for key in keys:
        picture(tmp_path / f"food-101/images/{key}.jpg", seed=int(key[-1]))
    (tmp_path / "food-101/meta").mkdir()
    (tmp_path / "food-101/meta/test.txt").write_text("\n".join(keys) + "\n")
    return tmp_path


def test_food(food):
    data = Food101N(str(food), **SMALL)
    with pytest.warns(UserWarning, match="24 train images, Food101N was published with 310009"):
        data.setup()
    assert data.num_classes == 101
    assert data.class_names[:2] == DISHES[:2]
    assert data.given_labels.tolist() == [c for c in range(6) for _ in range(4)]
    assert not len(data.meta_index)
    (batch,) = data.test_dataloader()
    assert batch.y.tolist() == [0, 1, 2]
    assert data.noisy is None


@pytest.mark.parametrize(("verified", "place"), [("train", 0), ("val", 1)])
def test_food_that_people_found_right_is_clean(food, verified, place):
    data = Food101N(str(food), verified=verified, **SMALL)
    # what leaves the training set makes it no other copy of the data
    with pytest.warns(UserWarning, match="24 train images"):
        data.setup("fit")
    right = [c for c in range(6) if c != 2]
    assert len(data.train_index) == 24 - len(right)
    assert data.given_labels[data.meta_index].tolist() == right
    paths = [data._train[0].path(int(i)) for i in range(24)]
    assert len(set(paths)) == 24
    assert [path[-9:] for path in paths[19:]] == [f"/{c}{place}abc.jpg"[-9:] for c in right]
    # the wrong one is left where nobody would know it
    assert any(path.endswith(f"2{place}abc.jpg") for path in paths[:19])


def test_what_is_wrong_with_food_is_named(food):
    meta = food / "Food-101N_release/meta"
    with pytest.raises(ValueError, match="verified='test' is unknown"):
        Food101N(str(food), verified="test")
    (meta / "imagelist.tsv").write_text("class_name/key\nsushi_roll/1.jpg\n")
    with pytest.raises(ValueError, match=r"imagelist\.tsv: 'sushi_roll/1\.jpg' is not '<class>/<image>'"):
        Food101N(str(food)).setup("fit")
    (meta / "classes.txt").write_text("class_name\nsushi\n")
    with pytest.raises(ValueError, match=r"classes\.txt names 1 classes, not 101"):
        Food101N(str(food)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"imagelist\.tsv does not exist. Unpack the archives"):
        Food101N(str(food / "nowhere")).setup("fit")
