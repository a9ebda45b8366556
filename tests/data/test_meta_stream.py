"""The stream of clean meta samples beside the training batches."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.core import Batch, Needs, PerturbationModule
from lightning_perturb.data import Arrays, CropFlip, Symmetric, Wrap
from lightning_perturb.data.balanced import MetaSampler
from lightning_perturb.data.samplers import EpochSampler

CLASSES = 3
COUNT = 60
X = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 6, 6), dtype=np.uint8)
Y = np.random.default_rng(1).permutation(np.arange(COUNT) % CLASSES)
FLOATS = torch.from_numpy(X).float() / 255


class Watching(PerturbationModule):
    """Keeps what every step was given, and trains on the first stream."""

    needs = Needs(meta=True)

    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)), CLASSES, optimizer=sgd)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch["train"], batch["meta"]))
        return super().training_step(batch["train"], batch_idx)


def sgd(params):
    return torch.optim.SGD(params, lr=0.01)


class Sparing(Watching):
    """Reads a meta batch in every third batch of an epoch, from the second epoch on."""

    needs = Needs(meta=True, meta_from=1, meta_every=3)


class Read(TensorDataset):
    """Counts how often a sample is read."""

    def __init__(self):
        super().__init__(FLOATS, torch.from_numpy(Y))
        self.counts = np.zeros(COUNT, dtype=int)

    def __getitem__(self, i):
        self.counts[i] += 1
        return super().__getitem__(i)


class Counting(CropFlip):
    """Counts the batches that pass."""

    def __init__(self):
        super().__init__(1)
        self.batches = 0

    def __call__(self, x, uniform):
        self.batches += 1
        return super().__call__(x, uniform)


class Foreign(L.LightningDataModule):
    num_classes = CLASSES

    def __init__(self):
        super().__init__()
        self.dataset = Read()

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=8, shuffle=True)


class Transferring(Foreign):
    """Takes part in the transfer and wants pairs there."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return x + 1, y


OPTIONS = {"label_noise": Symmetric(1.0), "meta_size": 6, "meta_batch_size": 4}
SOURCES = {
    "arrays": lambda **o: Arrays(X, Y, num_classes=CLASSES, **{"batch_size": 8, "augment": CropFlip(1), **o}),
    "wrap": lambda **o: Wrap(Foreign(), **o),
    "transferring": lambda **o: Wrap(Transferring(), **o),
}


def fit(data, epochs=2, ckpt_path=None, callbacks=(), method=Watching, **options):
    module = method()
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=list(callbacks),
        enable_model_summary=False, enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize("source", SOURCES)
def test_every_batch_has_clean_balanced_meta_samples_beside_it(source):
    data = SOURCES[source](**OPTIONS)
    seen = fit(data).seen
    assert len(seen) == 2 * 7  # 54 samples in batches of 8
    for train, meta in seen:
        assert isinstance(train, Batch)
        assert isinstance(meta, Batch)
        assert len(meta) == 4
        assert set(meta.index.tolist()) <= set(data.meta_index.tolist())
        assert np.array_equal(meta.y, Y[meta.index])
        assert (train.y.numpy() != Y[train.index]).all()
        assert meta.x.dtype == torch.float32
        assert np.bincount(meta.y, minlength=CLASSES).max() <= 2
    if source != "arrays":
        added = float(source == "transferring")
        assert torch.equal(seen[0][1].x, FLOATS[seen[0][1].index] + added)
    # 14 x 4 samples are 9 passes through 6 samples and 2 more: in whole passes all come equally often
    every = torch.cat([meta.index for _, meta in seen])[:54]
    assert torch.unique(every, return_counts=True)[1].tolist() == [9] * 6
    assert not torch.equal(torch.cat([m.index for _, m in seen[:6]]), torch.cat([m.index for _, m in seen[7:13]]))


def test_training_batches_are_those_without_the_stream():
    data = SOURCES["arrays"](**OPTIONS)
    with_meta = [train for train, _ in fit(data, 1).seen]
    alone = SOURCES["arrays"](**OPTIONS)
    alone.setup("fit")
    for one, other in zip(with_meta, alone.train_dataloader(), strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.y, other.y)


def test_modules_that_need_no_meta_samples_get_plain_batches():
    data = SOURCES["arrays"](**OPTIONS)
    data.setup("fit")
    assert isinstance(next(iter(data.train_dataloader())), Batch)
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer.strategy.connect(BoringModel())
    assert isinstance(data.train_dataloader(), DataLoader)


def test_the_meta_batch_is_as_large_as_the_training_batch_by_default():
    meta = fit(SOURCES["arrays"](**{**OPTIONS, "meta_batch_size": None}), 1).seen[0][1]
    assert len(meta) == 8  # more than there are meta samples
    assert len(meta.index.unique()) == 6


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("source", ["arrays", "transferring"])
def test_a_resumed_run_sees_the_same_meta_samples(source, workers, tmp_path):
    if workers and source != "arrays":
        pytest.skip("workers of a wrapped loader are the wrapped module's")
    options = {**OPTIONS, "num_workers": workers} if source == "arrays" else OPTIONS
    saves = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = fit(SOURCES[source](**options), 3, callbacks=[saves]).seen
    for step in (7, 10):
        rest = fit(SOURCES[source](**options), 3, tmp_path / f"step={step}.ckpt").seen
        assert len(rest) == 21 - step
        for expected, found in zip(whole[step:], rest, strict=True):
            for one, other in zip(expected, found, strict=True):
                assert torch.equal(one.index, other.index)
                assert torch.equal(one.x, other.x)


#: of 21 steps in epochs of 7, those in which Sparing reads a meta batch
PLACES = [7, 10, 13, 14, 17, 20]


def same(one, other):
    return (one is other is None) or (torch.equal(one.index, other.index) and torch.equal(one.x, other.x))


@pytest.mark.parametrize("source", SOURCES)
def test_a_method_that_reads_few_meta_batches_is_served_no_others(source):
    seen = fit(SOURCES[source](**OPTIONS), 3, method=Sparing).seen
    assert [place for place, (_, meta) in enumerate(seen) if meta is not None] == PLACES
    # and those are the ones that a method gets there which reads all
    every = fit(SOURCES[source](**OPTIONS), 3).seen
    assert len(every) == len(seen) == 21
    for place, ((train, meta), (other_train, other_meta)) in enumerate(zip(seen, every, strict=True)):
        assert same(train, other_train)
        assert place not in PLACES or same(meta, other_meta)


def test_no_other_meta_batch_is_loaded_across_a_resume_either(tmp_path):
    counting = Counting()
    options = {**OPTIONS, "augment": counting}
    saves = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole = fit(SOURCES["arrays"](**options), 3, callbacks=[saves], method=Sparing).seen
    assert counting.batches == 21 + len(PLACES)
    for step in (4, 7, 8, 10, 14):
        counting.batches = 0
        rest = fit(SOURCES["arrays"](**options), 3, tmp_path / f"step={step}.ckpt", method=Sparing).seen
        assert counting.batches == 21 - step + sum(place >= step for place in PLACES)
        for expected, found in zip(whole[step:], rest, strict=True):
            assert all(map(same, expected, found))


@pytest.mark.parametrize("source", ["wrap", "transferring"])
def test_of_a_wrapped_set_no_other_meta_sample_is_read(source):
    data = SOURCES[source](**OPTIONS)
    data.setup("fit")
    data.datamodule.dataset.counts[:] = 0
    fit(data, 3, method=Sparing)
    counts = data.datamodule.dataset.counts
    assert counts[data.meta_index].sum() == 4 * len(PLACES)
    assert set(counts[data.train_index]) == {3}


def test_workers_are_sent_no_other_meta_batch():
    alone = fit(SOURCES["arrays"](**OPTIONS), 2, method=Sparing).seen
    helped = fit(SOURCES["arrays"](**OPTIONS, num_workers=1), 2, method=Sparing).seen
    assert sum(meta is not None for _, meta in helped) == 3
    assert all(same(*metas) for metas in zip((m for _, m in alone), (m for _, m in helped), strict=True))


def sampler(rank=0, world=1, batch_size=6, epoch=0, skip=0, **reads):
    training = EpochSampler(torch.arange(30), 5, seed=3, rank=rank, world_size=world, epoch=epoch, skip=skip)
    return MetaSampler(100 + torch.arange(9), np.arange(9) % 3, batch_size, training, **reads)


def test_ranks_share_the_batch_of_one_process_and_each_has_every_class():
    # twice the training batches on one rank: the same number of steps needs the same set in halves
    one = sampler()
    halves = [sampler(rank, 2, 3) for rank in range(2)]
    for step in range(12):
        parts = [half._draw(step).positions for half in halves]
        assert torch.equal(torch.cat(parts), one._draw(step).positions)
        assert not torch.equal(*parts)
        for part in parts:
            assert sorted((part - 100).remainder(3).tolist()) == [0, 1, 2]


def test_the_place_follows_from_epoch_and_batch():
    one = sampler()
    epochs = []
    for epoch in range(3):
        one.set_epoch(epoch)
        epochs.append([draw.positions for draw in one])
        assert len(epochs[-1]) == len(one) == 6
    assert torch.equal(epochs[2][3], next(iter(sampler(epoch=2, skip=3))).positions)
    assert [draw.epoch for draw in sampler(epoch=1, skip=4)] == [10, 11]


def test_steps_that_read_no_meta_batch_draw_none():
    all_steps, few = sampler(epoch=2), sampler(epoch=2, skip=1, from_epoch=2, every=4)
    draws = list(few)
    assert [draw is None for draw in draws] == [True, True, True, False, True]
    assert torch.equal(draws[3].positions, list(all_steps)[4].positions)
    assert len(few) == 6
    assert list(sampler(epoch=1, from_epoch=2)) == [None] * 6


@pytest.mark.parametrize("source", ["arrays", "wrap"])
def test_faults_are_named(source):
    with pytest.raises(ValueError, match=r"Watching .*meta_size=0 leaves no clean samples.*at least 3"):
        fit(SOURCES[source]())
    with pytest.raises(
        ValueError, match=r"meta_size=2 leaves 1 of 3 classes without a clean sample \(first: class 2\)"
    ):
        fit(SOURCES[source](meta_size=2))
    with pytest.raises(ValueError, match="meta_batch_size=-1 must be"):
        SOURCES[source](meta_size=3, meta_batch_size=-1)
