"""Sixty small random images of three classes in the package's own data module."""

import numpy as np
import torch

from lightning_perturb.data import (
    Arrays,
)

CLASSES = 3
COUNT = 60
X = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 6, 6), dtype=np.uint8)
Y = np.random.default_rng(1).permutation(np.arange(COUNT) % CLASSES)
X_TEST = np.random.default_rng(2).integers(0, 256, (9, 1, 6, 6), dtype=np.uint8)
Y_TEST = np.arange(9) % CLASSES


def make(**options):
    options = {"batch_size": 16, **options}
    return Arrays(X, Y, X_TEST, Y_TEST, **options)


def ready(**options):
    data = make(**options)
    data.setup()
    return data


def one_epoch(data, epoch=0, spawn=False):
    loader = data.train_dataloader()
    if spawn:
        loader.multiprocessing_context = "spawn"
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    join = torch.cat
    return join([b.x for b in batches]), join([b.y for b in batches]), join([b.index for b in batches])


def labels_of(loader):
    return torch.cat([batch.y for batch in loader]).numpy()
