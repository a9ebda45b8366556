"""What methods that do not learn from clean meta samples get of them."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core import Batch, Needs, PerturbationModule
from lightning_perturb.data import Arrays, Symmetric, Wrap

CLASSES, COUNT, META = 3, 60, 6
X = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
Y = np.random.default_rng(1).permutation(np.arange(COUNT) % CLASSES)


class Plain(PerturbationModule):
    """Notes what it is trained and validated on."""

    def __init__(self):
        super().__init__(nn.Linear(4, CLASSES), CLASSES)
        self.train_seen, self.val_seen = {}, {}

    def training_step(self, batch, batch_idx):
        self._note(self.train_seen, batch["train"] if isinstance(batch, dict) else batch)
        return super().training_step(batch["train"] if isinstance(batch, dict) else batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self._note(self.val_seen, batch)
        super().validation_step(batch, batch_idx)

    @staticmethod
    def _note(seen, batch):
        batch = Batch.of(batch)
        seen.update(zip([tuple(row) for row in batch.x.tolist()], batch.y.tolist(), strict=True))


class Learning(Plain):
    """Has a use for meta samples."""

    needs = Needs(meta=True)


class Foreign(L.LightningDataModule):
    num_classes = CLASSES

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8, shuffle=True)


class ForeignWithVal(Foreign):
    def val_dataloader(self):
        return self.train_dataloader()


SOURCES = {
    "arrays": lambda **o: Arrays(X, Y, num_classes=CLASSES, batch_size=8, **o),
    "wrap": lambda **o: Wrap(Foreign(), **o),
}
sources = pytest.mark.parametrize("source", SOURCES)


def fit(module, data):
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module


def data(source, meta_labels, **options):
    return SOURCES[source](label_noise=Symmetric(1.0), meta_size=META, meta_labels=meta_labels, **options)


def true(rows):
    by_row = {tuple(row): int(y) for row, y in zip(X.tolist(), Y, strict=True)}
    return [by_row[row] for row in rows]


@sources
def test_dropped_samples_are_seen_by_nobody(source):
    plain, learning = fit(Plain(), data(source, "drop")), fit(Learning(), data(source, "drop"))
    assert plain.train_seen == learning.train_seen
    assert len(plain.train_seen) == COUNT - META
    assert not plain.val_seen


@sources
def test_merged_samples_train_with_their_true_labels_beside_the_noisy_ones(source):
    found = data(source, "merge")
    plain = fit(Plain(), found)
    dropped = fit(Plain(), data(source, "drop")).train_seen
    assert len(plain.train_seen) == COUNT
    added = {row: y for row, y in plain.train_seen.items() if row not in dropped}
    assert list(added.values()) == true(added)
    assert all(plain.train_seen[row] == y and [y] != true([row]) for row, y in dropped.items())
    assert found.noise_rate == (COUNT - META) / COUNT
    assert found.class_counts.sum() == COUNT
    assert found.true_counts.tolist() == np.bincount(Y).tolist()
    assert not len(found.meta_index)


@sources
def test_validating_samples_are_clean_and_not_trained_on(source):
    plain = fit(Plain(), data(source, "validate"))
    assert len(plain.val_seen) == META
    assert not plain.train_seen.keys() & plain.val_seen.keys()
    assert list(plain.val_seen.values()) == true(plain.val_seen)


@sources
@pytest.mark.parametrize("meta_labels", ["merge", "validate"])
def test_a_method_that_learns_from_them_has_them_as_meta_samples_alone(source, meta_labels):
    found = data(source, meta_labels)
    learning = fit(Learning(), found)
    assert learning.train_seen == fit(Learning(), data(source, "drop")).train_seen
    assert not learning.val_seen
    assert len(found.meta_index) == META


@sources
def test_one_data_module_serves_methods_of_both_kinds_in_turn(source):
    found = data(source, "merge")
    counts = [len(fit(module, found).train_seen) for module in (Plain(), Learning(), Plain())]
    assert counts == [COUNT, COUNT - META, COUNT]


def test_a_foreign_module_has_them_too():
    class Boring(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.rows = nn.Linear(4, CLASSES), 0

        def training_step(self, batch, batch_idx):
            x, y = batch
            self.rows += len(y)
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    assert fit(Boring(), data("wrap", "merge")).rows == COUNT


def test_two_wishes_for_one_validation_set_are_refused():
    with pytest.raises(ValueError, match=r"meta_labels='validate' and val_size=0\.2"):
        data("arrays", "validate", val_size=0.2)
    with pytest.raises(ValueError, match="meta_labels='validate' asks for a validation split"):
        Wrap(ForeignWithVal(), meta_size=META, meta_labels="validate")


def test_an_unknown_use_is_refused():
    with pytest.raises(ValueError, match="meta_labels"):
        data("arrays", "keep")


def test_a_use_without_samples_is_refused():
    with pytest.raises(ValueError, match="meta_labels='merge' says what to do with clean samples, but meta_size=0"):
        Arrays(X, Y, num_classes=CLASSES, meta_labels="merge")
