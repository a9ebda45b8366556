"""Wrapped data modules whose samples have several labels."""

import lightning as L
import numpy as np
import pytest
import torch
from testkit.training import trainer_of
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from lightning_perturb.core import Batch
from lightning_perturb.data import MissingLabels, MultiLabelSymmetric, Symmetric, Wrap
from lightning_perturb.methods import RBCE, CrossEntropy

CLASSES, SIZE = 4, 60
ROWS = np.stack([(np.arange(CLASSES) == i % CLASSES) | (np.arange(CLASSES) == i % 3) for i in range(SIZE)]).astype(int)


class Numbered(Dataset):
    """Sample i has an input that starts with i, and the labels i mod 4 and i mod 3."""

    def __init__(self, form=lambda row: torch.tensor(row).float(), layout="tuple"):
        self.form, self.layout = form, layout

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        x, y = torch.tensor([float(i), 1.0]), self.form(ROWS[i])
        return (x, y) if self.layout == "tuple" else {"image": x, "label": y, "name": f"n{i}"}


class Foreign(L.LightningDataModule):
    def __init__(self, dataset=None):
        super().__init__()
        self.dataset = Numbered() if dataset is None else dataset

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=16, shuffle=True)


def ready(dataset=None, **options):
    data = Wrap(Foreign(dataset), **options)
    data.setup("fit")
    return data


FORMS = {
    "floats": lambda row: torch.tensor(row).float(),
    "bools": lambda row: torch.tensor(row).bool(),
    "numpy": lambda row: row.astype(np.uint8),
}


@pytest.mark.parametrize("layout", ["tuple", "dict"])
@pytest.mark.parametrize("form", FORMS)
def test_given_labels_keep_type_and_place(form, layout):
    data = ready(Numbered(FORMS[form], layout), label_noise=MissingLabels(0.5), val_size=10)
    assert data.multi_label
    assert data.num_classes == CLASSES
    np.testing.assert_array_equal(data.true_labels, ROWS)
    assert 0 < data.noise_rate < 1
    seen = 0
    for batch in data.train_dataloader():
        x, y = (batch["image"], batch["label"]) if layout == "dict" else batch
        # collated, NumPy's numbers are tensors
        assert y.dtype == {"floats": torch.float32, "bools": torch.bool, "numpy": torch.uint8}[form]
        np.testing.assert_array_equal(y.numpy().astype(int), data.given_labels[x[:, 0].long()])
        seen += len(y)
    assert seen == 50


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.arange(SIZE)[:, None].float(), torch.tensor(ROWS).float()),
        ConcatDataset([Subset(Numbered(), range(30)), Subset(Numbered(), range(30, SIZE))]),
        Subset(TensorDataset(torch.arange(SIZE)[:, None].float(), torch.tensor(ROWS)), range(SIZE)),
    ],
    ids=["tensors", "concat", "subset"],
)
def test_labels_of_any_set(dataset):
    np.testing.assert_array_equal(ready(dataset).true_labels, ROWS)


class Kept(Numbered):
    """Keeps its labels, and counts how often a sample is read."""

    def __init__(self, targets):
        super().__init__()
        self.targets, self.reads = targets, 0

    def __getitem__(self, i):
        self.reads += 1
        return super().__getitem__(i)


def test_labels_that_are_kept_are_compared_and_not_read():
    right, wrong = Kept(ROWS.tolist()), Kept(ROWS[::-1].copy())
    for dataset in (right, wrong):
        np.testing.assert_array_equal(ready(dataset).true_labels, ROWS)
    assert right.reads < SIZE <= wrong.reads


def test_a_method_trains_on_them():
    data = Wrap(Foreign(), label_noise=MultiLabelSymmetric(0.1))
    module, seen = RBCE(nn.Linear(2, CLASSES), CLASSES), []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(batch)

    trainer_of(max_epochs=1, callbacks=[Look()]).fit(module, datamodule=data)
    assert torch.equal(module.class_counts, torch.from_numpy(data.class_counts))
    for batch in seen:
        assert isinstance(batch, Batch)
        np.testing.assert_array_equal(batch.y.numpy(), data.given_labels[batch.index])
    with pytest.raises(ValueError, match=r"CrossEntropy takes one class id .* several labels a sample"):
        trainer_of(max_epochs=1).fit(CrossEntropy(nn.Linear(2, CLASSES), CLASSES), datamodule=Wrap(Foreign()))


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="Choose MultiLabelSymmetric"):
        ready(label_noise=Symmetric(0.1))
    with pytest.raises(ValueError, match=r"shape \(60, 4\).*\[N, 5\]"):
        ready(num_classes=5)
    mixed = [(torch.zeros(2), torch.tensor(ROWS[i]) if i else torch.tensor(1)) for i in range(9)]
    with pytest.raises(ValueError, match=r"label of training sample 1 is \(4,\), that of sample 0 is a class id"):
        ready(mixed)
    drifting = Numbered()
    data = ready(drifting)
    drifting.form = lambda row: torch.tensor(1 - row).float()
    with pytest.raises(ValueError, match=r"gives training sample .* but gave"):
        list(data.train_dataloader())
