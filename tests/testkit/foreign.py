"""Data modules, sets and a method of another project, which Wrap is put around."""

import random
from collections import OrderedDict, namedtuple

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    Subset,
    random_split,
)

from lightning_perturb.core import Needs
from lightning_perturb.data import Wrap
from lightning_perturb.methods.cross_entropy import CrossEntropy

CLASSES = 5
SIZE = 200
TRUE = np.arange(SIZE) % CLASSES
Pair = namedtuple("Pair", ["x", "y"])


class Numbered(Dataset):
    """Sample i has an input that starts with i, and the label i mod 5; keeps no label vector."""

    def __init__(self, size=SIZE, layout="tuple", label=int, noise=False):
        self.size, self.layout, self.label, self.noise = size, layout, label, noise

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        x = torch.zeros(4)
        x[0] = i
        if self.noise:
            x[1], x[2], x[3] = torch.rand(()), float(np.random.random()), random.random()
        y = self.label(i % CLASSES)
        return {
            "tuple": lambda: (x, y),
            "triple": lambda: (x, "text", y),
            "list": lambda: [x, y],
            "namedtuple": lambda: Pair(x, y),
            "dict": lambda: {"image": x, "label": y, "name": f"n{i}"},
            "ordered": lambda: OrderedDict(pixels=x, fine=y),
            "bare": lambda: x,
        }[self.layout]()


class Foreign(L.LightningDataModule):
    def __init__(self, dataset=None, **loader):
        super().__init__()
        self.dataset = Numbered() if dataset is None else dataset
        self.loader = {"batch_size": 16, "shuffle": True} | loader

    def train_dataloader(self):
        return DataLoader(self.dataset, **self.loader)


class Split(L.LightningDataModule):
    """The usual kind: an unseeded split in setup, counted."""

    def __init__(self):
        super().__init__()
        self.setups, self.asked = [], 0
        self.vocabulary = 7

    def setup(self, stage):
        self.setups.append(stage)
        if stage in ("fit", "validate"):
            self.train, self.val = random_split(Numbered(), [150, 50])
            self.shift = torch.rand(()).item() + np.random.random() + random.random()
        else:
            self.test = Subset(Numbered(), range(50))

    def train_dataloader(self):
        self.asked += 1
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=16)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=16)


class Theirs(L.LightningModule):
    """A module of another project, which unpacks two fields."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        self.seen = {"train": [], "val": [], "test": []}

    def _step(self, batch, stage):
        x, y = batch
        self.seen[stage].append((x[:, 0].long().tolist(), y.tolist()))
        return nn.functional.cross_entropy(self.net(x / SIZE), y)

    def training_step(self, batch, _):
        assert type(batch) is list
        return self._step(batch, "train")

    def validation_step(self, batch, _):
        self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def pairs(self, stage="train"):
        return [(p, y) for xs, ys in self.seen[stage] for p, y in zip(xs, ys, strict=True)]


class Ours(CrossEntropy):
    def __init__(self, **kwargs):
        super().__init__(nn.Linear(4, CLASSES), CLASSES, optimizer=_sgd, **kwargs)
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch)
        return super().training_step(batch, batch_idx)


class OursWithTwoViews(Ours):
    needs = Needs(index=True, views=2)


def _sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


def trainer(epochs=1, **kwargs):
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False} | kwargs
    return L.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **silent)


def ready(datamodule=None, **kwargs):
    wrap = Wrap(Foreign() if datamodule is None else datamodule, **kwargs)
    wrap.setup("fit")
    return wrap


def attached(wrap, module):
    """A wrap that serves what this module gets in training."""
    t = trainer()
    t.strategy._lightning_module = module
    wrap.trainer = t
    return wrap


def rows(loader):
    """Every batch as (inputs, labels)."""
    return [(x.clone(), y.clone()) for x, y in loader]


def _text(i):
    return torch.arange(i % 7 + 1), i % 2


class Text(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return _text(i)


class Pictures(Dataset):
    """Like torchvision's: ``targets``, ``classes``, ``transform`` and ``target_transform``; counts what is read."""

    def __init__(self, size=300, classes=10, target_transform=None, transform=None):
        self.data = np.random.default_rng(0).integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)
        self.targets = [i * 7 % classes for i in range(size)]
        self.classes = [f"c{c}" for c in range(classes)]
        self.target_transform, self.transform = target_transform, transform
        self.read = []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        self.read.append(i)
        x, y = self.data[i], self.targets[i]
        return (self.transform(x) if self.transform else x), (self.target_transform(y) if self.target_transform else y)
