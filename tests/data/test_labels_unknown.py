"""Data with a label noise of its own: nothing is claimed that nobody knows."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from testkit.training import trainer_of
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.callbacks import AdversarialReport, Recorder, SuspectReport
from lightning_perturb.data import Arrays, Symmetric, Tasks, Wrap
from lightning_perturb.methods import CrossEntropy, OracleRobustLoss
from lightning_perturb.nets import MLP

CLASSES, COUNT = 3, 30
X = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
Y = np.arange(COUNT) % CLASSES


class Foreign(LightningDataModule):
    num_classes = CLASSES

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8)


def arrays(**options):
    return Arrays(X, Y, num_classes=CLASSES, **{"labels_known": False, "batch_size": 8, **options})


def wrapped(**options):
    return Wrap(Foreign(), **{"labels_known": False, **options})


SOURCES = pytest.mark.parametrize("source", [arrays, wrapped])


@SOURCES
def test_no_share_of_wrong_labels_is_claimed(source):
    data = source()
    assert data.true_labels is None
    data.setup("fit")
    assert data.given_labels.tolist() == Y.tolist()
    assert data.true_labels is None
    assert data.noisy is None
    assert data.true_counts is None
    assert np.isnan(data.noise_rate)
    assert np.isnan(data.transition_matrix).all()
    assert data.transition_matrix.shape == (CLASSES, CLASSES)
    assert data.facts.true_counts is None
    assert data.class_counts.tolist() == [10, 10, 10]
    known = source(labels_known=True)
    known.setup("fit")
    assert known.noise_rate == 0.0
    assert known.true_labels.tolist() == Y.tolist()
    assert known.checksum == data.checksum


@SOURCES
def test_noise_on_top_is_no_truth_either(source):
    data = source(label_noise=Symmetric(1.0))
    data.setup("fit")
    assert (data.given_labels != Y).all()
    assert data.noisy is None
    assert np.isnan(data.noise_rate)


@SOURCES
def test_clean_samples_of_the_training_set_are_refused(source):
    with pytest.raises(ValueError, match=r"meta_size=6 asks for clean samples.*meta_list of ImageLists"):
        source(meta_size=6)
    with pytest.raises(ValueError, match="val_labels='clean' asks for true labels, but labels_known=False"):
        source(val_size=6, val_labels="clean")


def test_tasks_with_one_of_them():
    tasks = Tasks([arrays(), arrays(labels_known=True)])
    tasks.setup("fit")
    assert tasks.facts.true_counts is None


@SOURCES
def test_reports_leave_out_what_they_cannot_know(source, tmp_path):
    recorder = Recorder(dirpath=tmp_path)
    reports = [SuspectReport(path=str(tmp_path / "suspects.csv"), sheet=0), AdversarialReport()]
    trainer = trainer_of(max_epochs=2, callbacks=[recorder, *reports], default_root_dir=tmp_path)
    trainer.fit(CrossEntropy(MLP(CLASSES, 4, (4,)), CLASSES), datamodule=source())
    told = set(trainer.callback_metrics)
    assert "train/acc" in told
    assert not told & {"train/acc_true", "train/memorised"}
    assert not [name for name in told if name.endswith(("_clean", "_noisy"))]
    assert reports[0].summary == {}


def test_a_method_that_must_know_says_so():
    with pytest.raises(ValueError, match=r"must know which labels are wrong.*whose labels are known"):
        trainer_of(max_epochs=1).fit(OracleRobustLoss(MLP(CLASSES, 4, (4,)), CLASSES), datamodule=arrays())
