"""IMDB in its published layout."""

import warnings

import pytest

from lightning_perturb.data import IMDB, FirstPercent


class Small(IMDB):
    published = 10


def write(root, count=10):
    for split in ("train", "test"):
        for name in ("neg", "pos"):
            folder = root / "aclImdb" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                rating = 1 + number % 4 if name == "neg" else 7 + number % 4
                (folder / f"{number}_{rating}.txt").write_text(f"{split} {name} w{number}<br /><br />ça", "utf-8")
    return root


def test_split_order_and_noise(tmp_path):
    data = Small(str(write(tmp_path)), validation=4, label_noise=FirstPercent(0.25), batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup()
    assert data.class_names == ["negative", "positive"]
    # by number, so that ten comes after nine, and the classes take turns
    expected = [f"train {name} w{number}<br /><br />ça" for number in range(8) for name in ("neg", "pos")]
    assert data.raw_texts(range(16)) == expected
    assert data.noisy.nonzero()[0].tolist() == [0, 1, 2, 3]
    assert data.given_labels[:6].tolist() == [1, 0, 1, 0, 0, 1]
    (val,) = data.val_dataloader()
    words = data.tokenizer.vocabulary
    assert {"train", "neg", "pos", "ça"} <= set(words)
    assert not {"w8", "w9", "test", "br"} & set(words)
    assert val.y.tolist() == [0, 1, 0, 1]
    (test,) = data.test_dataloader()
    assert (len(test), words[int(test.x[0, 1])]) == (20, "neg")


def test_asymmetric_noise(tmp_path):
    data = Small(str(write(tmp_path)), validation=4, label_noise=FirstPercent(0.25, from_class=1))
    data.setup("fit")
    assert data.noisy.nonzero()[0].tolist() == [1, 3]
    assert data.given_labels.sum() == 6


def test_validation_can_be_carved(tmp_path):
    data = Small(str(write(tmp_path)), validation=0, val_size=6)
    data.setup("fit")
    assert (len(data.train_index), len(data.val_index)) == (14, 6)


def test_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"root='none'.*does not exist. Unpack aclImdb_v1.tar.gz"):
        IMDB("none").setup("fit")
    write(tmp_path, count=3)
    with pytest.warns(UserWarning, match="has 3 reviews, not the published 12500"):
        IMDB(str(tmp_path), validation=2).setup("fit")
    monkeypatch.setattr(Small, "published", 3)
    with pytest.raises(ValueError, match="validation=6 leaves no training sample of the 6"):
        Small(str(tmp_path), validation=6).setup("fit")
    (tmp_path / "aclImdb" / "train" / "neg" / "notes.txt").write_text("x")
    monkeypatch.setattr(Small, "published", 4)
    with pytest.raises(ValueError, match=r"notes\.txt is not named"):
        Small(str(tmp_path), validation=2).setup("fit")
