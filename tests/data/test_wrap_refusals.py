"""What Wrap refuses, and says so."""

import lightning as L
import pytest
import torch
from testkit.foreign import SIZE, Foreign, Numbered, Split, ready, rows
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_perturb.data import Digits, Wrap


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Numbered())


class OwnIteration(DataLoader):
    def __iter__(self):
        return iter([])


class OwnBatches(BatchSampler):
    pass


class HalfInOrder(SequentialSampler):
    pass


def _loader_of(**kwargs):
    return DataLoader(Numbered(), **kwargs)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: _loader_of(sampler=WeightedRandomSampler([1.0] * SIZE, SIZE)), "sampler WeightedRandomSampler"),
        (lambda: _loader_of(sampler=HalfInOrder(range(SIZE))), "sampler HalfInOrder"),
        (lambda: _loader_of(sampler=[1, 2, 3]), "sampler list"),
        (lambda: _loader_of(sampler=RandomSampler(range(SIZE), replacement=True)), "with replacement"),
        (lambda: _loader_of(sampler=RandomSampler(range(SIZE), num_samples=50)), "draws 50 of 200 samples"),
        (lambda: _loader_of(sampler=SequentialSampler(range(50))), "draws 50 of 200 samples"),
        (
            lambda: _loader_of(batch_sampler=OwnBatches(SequentialSampler(range(SIZE)), 8, False)),
            "batch sampler OwnBatches",
        ),
        (lambda: _loader_of(batch_size=None), "batch_size=None"),
        (lambda: DataLoader(Stream(), batch_size=4), "IterableDataset Stream.*map-style"),
        (lambda: [_loader_of(), _loader_of()], r"several loaders \(list\)"),
        (lambda: {"a": _loader_of()}, r"several loaders \(dict\)"),
        (lambda: OwnIteration(Numbered()), "a OwnIteration"),
        (lambda: [torch.zeros(1)] * 3 and iter(()), "not a plain torch DataLoader"),
        (lambda: DataLoader(Numbered(0), batch_size=4), "empty"),
    ],
)
def test_loaders_that_cannot_be_ordered_anew_are_refused_by_name(loader, message):
    class Custom(L.LightningDataModule):
        def train_dataloader(self):
            return loader()

    with pytest.raises(ValueError, match=f"Custom.*{message}"):
        ready(Custom())


@pytest.mark.parametrize(
    "loader",
    [
        {"batch_sampler": BatchSampler(RandomSampler(range(SIZE)), 16, False), "batch_size": 1, "shuffle": None},
        {"sampler": DistributedSampler(range(SIZE), num_replicas=2, rank=1), "shuffle": None},
        {"sampler": RandomSampler(range(SIZE)), "shuffle": None},
    ],
)
def test_plain_samplers_are_replaced(loader):
    orders = [torch.cat([x for x, _ in rows(ready(Foreign(**loader)).train_dataloader())])[:, 0] for _ in range(2)]
    assert torch.equal(*orders)
    assert orders[0].tolist() != list(range(SIZE))
    assert sorted(orders[0].tolist()) == list(range(SIZE))


def test_drop_last_and_order_are_kept():
    wrap = ready(Foreign(shuffle=False, drop_last=True, batch_size=64))
    assert [len(y) for _, y in wrap.train_dataloader()] == [64, 64, 64]
    assert torch.cat([x for x, _ in wrap.train_dataloader()])[:, 0].tolist() == list(range(192))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datamodule": nn.Linear(1, 1)}, "datamodule=Linear is not a lightning.pytorch.LightningDataModule"),
        ({"datamodule": Digits()}, "Digits takes label_noise"),
        ({"datamodule": L.LightningDataModule()}, "no train_dataloader"),
        ({"datamodule": Split(), "val_size": 0.1}, "val_size=0.1 .* Split has a val_dataloader"),
        ({"datamodule": Foreign(), "num_classes": 1}, "num_classes=1"),
        ({"datamodule": Foreign(), "mean": (0.5,)}, "mean=.* and std=None belong together"),
        ({"datamodule": Foreign(), "meta_size": -1}, "meta_size=-1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Wrap(**arguments)
