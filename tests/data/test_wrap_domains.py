"""Wrapped data modules whose samples have domains."""

import lightning as L
import numpy as np
import pytest
import torch
from testkit.training import trainer_of
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_perturb.core import Needs, PerturbationModule
from lightning_perturb.data import Symmetric, Wrap

SIZE = 60
Y = np.arange(SIZE) % 3
D = (np.arange(SIZE) // 4 % 4 == 0).astype(int)


class Placed(Dataset):
    """Sample i has an input that starts with i."""

    def __init__(self, layout="tuple"):
        self.layout = layout
        # what keeps labels must not be taken for domains
        self.targets = Y

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        x = torch.tensor([float(i), 1.0])
        if self.layout == "tuple":
            return x, int(Y[i]), torch.tensor(D[i])
        return {"x": x, "y": int(Y[i]), "domain": int(D[i])}


class Foreign(L.LightningDataModule):
    num_classes = 3

    def __init__(self, layout="tuple"):
        super().__init__()
        self.dataset = Placed(layout)

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=16, shuffle=True)

    def test_dataloader(self):
        return DataLoader(self.dataset, batch_size=16)


class Transferring(Foreign):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


class InDomains(PerturbationModule):
    needs = Needs(domains=True)

    def __init__(self):
        super().__init__(nn.Linear(2, 3), 3)
        self.seen = []

    def perturb_loss(self, loss, logits, batch):
        self.seen.append((batch.x[:, 0].long(), self.domains(batch)))
        return loss


@pytest.mark.parametrize(("foreign", "key"), [(Foreign, 2), (Transferring, 2), (lambda: Foreign("dict"), "domain")])
def test_batches_have_them(foreign, key):
    data = Wrap(
        foreign(), domain_key=key, label_noise=Symmetric(0.3), val_size=12, balanced_from=0, balanced_by="group"
    )
    module, trainer = InDomains(), trainer_of(max_epochs=1)
    trainer.fit(module, datamodule=data)
    for index, domain in module.seen:
        assert torch.equal(domain, torch.from_numpy(D)[index])
    assert data.domain_names == ["0", "1"]
    assert data.facts.group_counts.sum() == 48
    drawn = torch.cat([index for index, _ in module.seen]).numpy()
    groups = np.bincount(data.given_labels[drawn] * 2 + D[drawn])
    assert groups.max() - groups.min() <= 1
    assert "val/worst_group_acc" in trainer.callback_metrics
    (tested,) = trainer_of().test(module, datamodule=data, verbose=False)
    # batches of the wrapped module's own are grouped where they name the domain
    assert ("test/worst_group_acc" in tested) == (key == "domain")


def test_a_set_that_keeps_tensors():
    class Tensors(Foreign):
        def __init__(self):
            super().__init__()
            self.dataset = TensorDataset(torch.arange(SIZE)[:, None].float(), torch.from_numpy(Y), torch.from_numpy(D))

    data = Wrap(Tensors(), domain_key=2, domain_names=["near", "far"], meta_size=12, meta_by="group")
    data.setup("fit")
    assert data.domains.tolist() == D.tolist()
    assert np.bincount(Y[data.meta_index] * 2 + D[data.meta_index]).tolist() == [2] * 6
    assert data.domain_names == ["near", "far"]


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"InDomains .* of which the data tells none.*Wrap with domain_key"):
        trainer_of(max_epochs=1).fit(InDomains(), datamodule=Wrap(Foreign()))
    with pytest.raises(ValueError, match=r"domain_key=7 finds no domain"):
        Wrap(Foreign(), domain_key=7).setup("fit")
    with pytest.raises(ValueError, match="domain_key=0 finds no domain"):
        Wrap(Foreign(), domain_key=0).setup("fit")
    with pytest.raises(ValueError, match="belongs to domain_key, which is None"):
        Wrap(Foreign(), domain_names=["a", "b"])
    with pytest.raises(ValueError, match=r"the domains of Wrap\[.*outside 0\.\.0"):
        Wrap(Foreign(), domain_key=2, domain_names=["a"]).setup("fit")
