"""CivilComments in the layout of WILDS."""

import csv

import numpy as np
import pytest
import torch
from testkit.training import adam, trainer_of

from lightning_perturb.data import CivilComments
from lightning_perturb.methods import CrossEntropy
from lightning_perturb.nets import BiLSTMAttention

NAMES = ["male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white"]


class Small(CivilComments):
    published = {"train": 12, "val": 4, "test": 6}


def rows():
    for split, number in Small.published.items():
        for i in range(number):
            row = {"": str(i), "id": str(i), "split": split, "comment_text": f"{split}, comment {i}\nmore"}
            row["toxicity"] = str([0.0, 0.5, 0.49, 1.0][i % 4])
            row |= {name: str([0.0, 0.6][(i >> k) % 2]) for k, name in enumerate(NAMES)}
            yield row


def write(folder, changed=lambda row: row, dropped=()):
    listed = [changed(row) for row in rows()]
    with open(folder / "all_data_with_identities.csv", "w", newline="", encoding="utf-8") as file:
        names = [name for name in listed[0] if name not in dropped]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(listed)
    return str(folder)


def test_classes_and_domains(tmp_path):
    data = Small(write(tmp_path, lambda row: row | {"white": ""}), domain="female", batch_size=16)
    data.setup()
    assert data.true_labels.tolist() == [0, 1, 0, 1] * 3
    assert data.raw_texts([1]) == ["train, comment 1\nmore"]
    assert data.read_domains("train").tolist() == [0, 0, 1, 1] * 3
    assert data.domain_names == ["not female", "female"]
    members = data.evaluation_domains("test")
    expected = np.array([[(i >> k) % 2 == 1 for k in range(8)] for i in range(6)])
    expected[:, 7] = False
    np.testing.assert_array_equal(members, expected)
    assert data.evaluation_domain_names == NAMES
    (batch,) = data.train_dataloader()
    order = batch.index.tolist()
    assert batch.extra["domain"].tolist() == [(i >> 1) % 2 for i in order]
    (test,) = data.test_dataloader()
    assert torch.equal(test.extra["domain"].bool(), torch.from_numpy(expected))


def test_a_run_reports_groups(tmp_path):
    data = Small(write(tmp_path))
    module = CrossEntropy(BiLSTMAttention(2, vocab_size=100, embedding_dim=4, hidden=3), 2, optimizer=adam)
    trainer = trainer_of(max_epochs=1)
    trainer.fit(module, data)
    (found,) = trainer.test(module, data, verbose=False)
    assert "test/worst_group_acc" in found


def test_a_comment_without_words_is_kept(tmp_path):
    data = Small(write(tmp_path, lambda row: row | ({"comment_text": " "} if row["id"] == "3" else {})))
    data.setup("fit")
    assert data.raw_texts([3]) == ["."]


def test_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root='none'.*does not exist\. Download"):
        CivilComments("none").setup("fit")
    with pytest.raises(ValueError, match="domain='asian' is unknown"):
        CivilComments(domain="asian")
    for change, dropped, message in (
        ({}, ("black",), "line 3: there is no column 'black'"),
        ({"split": "dev"}, (), "split is 'dev', not train"),
        ({"toxicity": "x"}, (), "toxicity is 'x', which is no share"),
        ({"split": "train"}, (), "no comments of the split 'val'"),
    ):
        folder = write(tmp_path, lambda row, change=change: row | change, dropped)
        with pytest.raises(ValueError, match=message):
            Small(folder).setup("fit")
    write(tmp_path)
    with pytest.warns(UserWarning, match="has 12 comments of the split 'train', not the published 269038"):
        CivilComments(str(tmp_path)).setup("fit")
