import copy
import pickle
import random
import warnings
from collections import OrderedDict, namedtuple
from typing import ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)
from torch.utils.data.distributed import DistributedSampler

from lightning_perturb.core import Batch, Needs
from lightning_perturb.data import Digits, Exponential, InstanceShared, PairFlip, Symmetric, Wrap
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


# a module of another project ----------------------------------------------------------------------------------------


def test_a_foreign_module_trains_on_flipped_labels_and_tests_on_clean_ones():
    wrap, module = Wrap(Split(), label_noise=Symmetric(0.4)), Theirs()
    t = trainer(2)
    t.fit(module, wrap)
    t.test(module, wrap, verbose=False)
    subset = wrap.datamodule.train.indices
    position = {original: place for place, original in enumerate(subset)}
    pairs = module.pairs()
    assert len(pairs) == 2 * 150
    assert {p for p, _ in pairs} == set(subset)
    assert all(y == wrap.given_labels[position[p]] for p, y in pairs)
    assert np.array_equal(wrap.true_labels, TRUE[subset])
    flipped = np.mean([y != TRUE[p] for p, y in pairs])
    assert flipped == pytest.approx(wrap.noise_rate)
    assert 0.28 < flipped < 0.52  # 3 standard deviations of 150 draws
    assert all(y == TRUE[p] for p, y in module.pairs("val") + module.pairs("test"))
    first, second = pairs[:150], pairs[150:]
    assert first != second
    assert sorted(first) == sorted(second)


def test_the_realized_noise_is_described():
    wrap = ready(label_noise=PairFlip(0.5))
    assert np.array_equal(wrap.noisy, wrap.given_labels != TRUE)
    assert wrap.transition_matrix.shape == (CLASSES, CLASSES)
    assert np.allclose(np.diag(wrap.transition_matrix).mean(), 1 - wrap.noise_rate)
    assert wrap.class_counts.sum() == SIZE
    assert wrap.facts.num_samples == SIZE
    assert wrap.facts.num_classes == wrap.num_classes == CLASSES
    assert wrap.class_names == ["0", "1", "2", "3", "4"]


def test_without_noise_the_samples_are_the_foreign_ones():
    wrap = ready(Foreign(shuffle=False))
    for (x, y), (x_foreign, y_foreign) in zip(
        wrap.train_dataloader(), DataLoader(Numbered(), batch_size=16), strict=True
    ):
        assert torch.equal(x, x_foreign)
        assert torch.equal(y, y_foreign)


# our modules --------------------------------------------------------------------------------------------------------


def test_our_method_gets_the_index():
    wrap, module = Wrap(Foreign(), label_noise=Symmetric(0.4)), Ours()
    t = trainer()
    t.fit(module, wrap)
    index = torch.cat([b.index for b in module.batches])
    assert all(type(b) is Batch for b in module.batches)
    assert torch.equal(torch.cat([b.x for b in module.batches])[:, 0].long(), index)
    assert np.array_equal(torch.cat([b.y for b in module.batches]).numpy(), wrap.given_labels[index.numpy()])
    assert sorted(index.tolist()) == list(range(SIZE))
    assert np.array_equal(module.facts.class_counts, np.bincount(wrap.given_labels))


def test_two_views_are_two_augmentations_of_the_same_samples():
    wrap = attached(ready(Foreign(Numbered(noise=True))), OursWithTwoViews())
    for batch in wrap.train_dataloader():
        first, second = batch.x
        assert torch.equal(first[:, 0].long(), batch.index)
        assert torch.equal(second[:, 0].long(), batch.index)
        assert (first[:, 1:] != second[:, 1:]).all()


@pytest.mark.parametrize(
    ("layout", "key"), [("dict", None), ("ordered", "fine"), ("namedtuple", None), ("namedtuple", "y"), ("triple", 2)]
)
def test_other_layouts_become_our_batch(layout, key):
    wrap = attached(ready(Foreign(Numbered(layout=layout)), label_noise=Symmetric(0.4), label_key=key), Ours())
    for batch in wrap.train_dataloader():
        x = batch.x["pixels"] if layout == "ordered" else batch.x
        assert torch.equal(x[:, 0].long(), batch.index)
        assert np.array_equal(batch.y, wrap.given_labels[batch.index])


def test_further_fields_travel_along():
    data = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20) % 2, torch.arange(20) * 3)
    wrap = attached(ready(Foreign(data)), Ours())
    for batch in wrap.train_dataloader():
        assert torch.equal(batch.extra["part_2"], batch.index * 3)


# layouts and types of labels ----------------------------------------------------------------------------------------


def _int32(y):
    return np.int32(y)


def _array(y):
    return np.array([y], dtype=np.int16)


def _column(y):
    return torch.tensor([y], dtype=torch.uint8)


@pytest.mark.parametrize("layout", ["tuple", "list", "namedtuple", "dict", "ordered"])
@pytest.mark.parametrize("label", [int, _int32, _array, _column, torch.tensor])
def test_the_types_of_sample_and_label_are_kept(layout, label):
    seen = []

    def keep(samples):
        seen.extend(samples)
        return default_collate(samples)

    data = Numbered(layout=layout, label=label)
    key = "fine" if layout == "ordered" else None
    wrap = ready(Foreign(data, collate_fn=keep), label_noise=Symmetric(1.0), label_key=key)
    seen.clear()
    for _ in wrap.score_dataloader():
        pass
    place = {"dict": "label", "ordered": "fine"}.get(layout, 1)
    for i, sample in enumerate(seen):
        before, after = data[i][place], sample[place]
        assert type(sample) is type(data[i])
        assert type(after) is type(before)
        assert getattr(after, "dtype", None) == getattr(before, "dtype", None)
        assert getattr(after, "shape", None) == getattr(before, "shape", None)
        assert int(np.asarray(after).item()) == wrap.given_labels[i] != TRUE[i]
        if isinstance(sample, dict):
            assert list(sample) == list(data[i])


def test_a_column_of_labels_becomes_a_vector_for_our_methods():
    wrap = attached(ready(Foreign(Numbered(label=_column))), Ours())
    batch = next(iter(wrap.train_dataloader()))
    assert batch.y.shape == (16,)
    assert batch.y.dtype == torch.int64


def test_the_sample_of_the_data_set_is_left_alone():
    kept = [{"x": torch.zeros(1), "y": i % 2} for i in range(20)]
    wrap = ready(Foreign(kept), label_noise=Symmetric(1.0))
    for _ in wrap.train_dataloader():
        pass
    assert [sample["y"] for sample in kept] == [i % 2 for i in range(20)]


# collate ------------------------------------------------------------------------------------------------------------


def _padded(samples):
    x, y = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(list(x), batch_first=True), torch.tensor(y)


def _longest_first(samples):
    return default_collate(sorted(samples, key=lambda sample: -sample[0][0]))


def _as_words(samples):
    return {"input_ids": torch.stack([x for x, _ in samples]), "labels": torch.tensor([y for _, y in samples])}


def _text(i):
    return torch.arange(i % 7 + 1), i % 2


class Text(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return _text(i)


def test_a_custom_collate_function_is_kept():
    wrap = ready(Foreign(Text(), collate_fn=_padded, shuffle=False, batch_size=8), label_noise=Symmetric(0.5))
    for start, (x, y) in zip(range(0, 40, 8), wrap.train_dataloader(), strict=True):
        assert x.shape == (8, max(i % 7 + 1 for i in range(start, start + 8)))
        assert np.array_equal(y, wrap.given_labels[start : start + 8])
    batch = next(iter(attached(wrap, Ours()).train_dataloader()))
    assert np.array_equal(batch.index, np.arange(8))


def test_the_layout_after_collating_may_differ_from_that_of_samples():
    wrap = attached(ready(Foreign(collate_fn=_as_words), label_noise=Symmetric(0.4)), Ours())
    batch = next(iter(wrap.train_dataloader()))
    assert torch.equal(batch.x["input_ids"][:, 0].long(), batch.index)
    assert np.array_equal(batch.y, wrap.given_labels[batch.index])


def test_a_collate_function_that_sorts_serves_others_but_not_the_index():
    wrap = ready(Foreign(collate_fn=_longest_first))
    assert len(list(wrap.train_dataloader())) == 13
    with pytest.raises(ValueError, match=r"collate_fn .* do not stand in order"):
        next(iter(attached(wrap, Ours()).train_dataloader()))


# once, and the same everywhere --------------------------------------------------------------------------------------


def test_setup_runs_once_for_each_stage_and_the_loader_is_asked_once():
    inner = Split()
    wrap, module = Wrap(inner, label_noise=Symmetric(0.4)), Theirs()
    for _ in range(2):
        t = trainer()
        t.fit(module, wrap)
        t.test(module, wrap, verbose=False)
    t.validate(module, wrap, verbose=False)
    assert inner.setups == ["fit", "test", "validate"]
    assert inner.asked == 1


def test_an_unseeded_split_is_the_same_every_time_and_leaves_no_trace():
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    untouched = (torch.rand(2).tolist(), np.random.random(), random.random())
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    first = ready(Split(), label_noise=Symmetric(0.4))
    assert (torch.rand(2).tolist(), np.random.random(), random.random()) == untouched
    second = ready(Split(), label_noise=Symmetric(0.4))
    assert first.datamodule.train.indices == second.datamodule.train.indices
    assert first.datamodule.shift == second.datamodule.shift
    assert first.checksum == second.checksum
    assert ready(Split(), label_noise=Symmetric(0.4), seed=1).datamodule.train.indices != first.datamodule.train.indices
    before = first.datamodule.train.indices
    first.setup("validate")
    assert first.datamodule.train.indices == before


def test_more_noise_moves_neither_split_nor_order():
    wraps = [ready(label_noise=noise, meta_size=20, val_size=0.1) for noise in (None, Symmetric(0.2), Symmetric(0.9))]
    orders = [[x[:, 0].tolist() for x, _ in wrap.train_dataloader()] for wrap in wraps]
    assert orders[0] == orders[1] == orders[2]
    assert np.array_equal(wraps[0].meta_index, wraps[2].meta_index)


def test_workers_see_the_same_labels_and_augmentation_and_the_main_stream_is_left_alone():
    served = []
    for workers in (0, 2):
        wrap = ready(Foreign(Numbered(96, noise=True), num_workers=workers), label_noise=Symmetric(0.4))
        loader = wrap.train_dataloader()
        torch.manual_seed(5)
        epochs = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            epochs.append(rows(loader))
        served.append((epochs, torch.rand(3)))
    (without, after), (with_two, after_two) = served
    assert torch.equal(after, after_two)
    for first, second in zip(without, with_two, strict=True):
        for (x, y), (x_two, y_two) in zip(first, second, strict=True):
            assert torch.equal(x, x_two)
            assert torch.equal(y, y_two)
    # the augmentation is random between samples and epochs, and uniform
    (one, two) = (torch.cat([x for x, _ in epoch]) for epoch in without)
    one, two = one[one[:, 0].argsort()], two[two[:, 0].argsort()]
    assert (one[:, 1:] != two[:, 1:]).all()
    assert one[:, 1:].flatten().unique().numel() == one[:, 1:].numel()
    assert abs(float(one[:, 1:].mean()) - 0.5) < 0.06


class OnRank(Wrap):
    place: ClassVar[tuple[int, int]] = (0, 1)

    @property
    def _ranks(self):
        return self.place


def test_two_ranks_together_see_what_one_process_sees():
    def served(place, batch_size):
        wrap = OnRank(Foreign(Numbered(96, noise=True), batch_size=batch_size), label_noise=Symmetric(0.4))
        wrap.place = place
        wrap.setup("fit")
        return rows(wrap.train_dataloader())

    one = served((0, 1), 16)
    two = zip(served((0, 2), 8), served((1, 2), 8), strict=True)
    for (x, y), parts in zip(one, two, strict=True):
        x_two, y_two = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        assert torch.equal(x[x[:, 0].argsort()], x_two[x_two[:, 0].argsort()])
        assert torch.equal(y[x[:, 0].argsort()], y_two[x_two[:, 0].argsort()])


def test_copies_and_pickles_serve_the_same():
    wrap = ready(Hooked(), label_noise=Symmetric(0.4))
    for other in (copy.deepcopy(wrap), pickle.loads(pickle.dumps(wrap))):
        assert other.datamodule is not wrap.datamodule
        assert other.val_dataloader.__self__ is other.datamodule
        for (x, y), (x_other, y_other) in zip(wrap.train_dataloader(), other.train_dataloader(), strict=True):
            assert torch.equal(x, x_other)
            assert torch.equal(y, y_other)


# hooks --------------------------------------------------------------------------------------------------------------


class Hooked(Split):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.prepare_data_per_node = False

    def prepare_data(self):
        self.calls.append("prepare_data")

    def teardown(self, stage):
        self.calls.append(f"teardown {TrainerFn(stage).value}")

    def on_exception(self, exception):
        self.calls.append(f"exception {exception}")

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        self.calls.append(f"after {len(x)}")
        return [x * 2, y]

    def state_dict(self):
        return {"calls": len(self.calls)}

    def load_state_dict(self, state):
        self.calls.append(f"loaded {sorted(state)}")


class DoublesInModule(Theirs):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return [x * 2, y]


@pytest.mark.parametrize("module", [Theirs, Ours])
def test_hooks_reach_the_wrapped_module_with_the_batch_it_knows(module, tmp_path):
    inner = Hooked()
    wrap, module = Wrap(inner), module()
    assert wrap.prepare_data_per_node is False
    t = trainer(enable_checkpointing=True, default_root_dir=tmp_path)
    t.fit(module, wrap)
    assert inner.trainer is t
    assert inner.calls[0] == "prepare_data"
    assert "after 16" in inner.calls
    assert inner.calls[-1] == "teardown fit"
    path = next(tmp_path.rglob("*.ckpt"))
    trainer(2).fit(module, wrap, ckpt_path=path, weights_only=True)
    assert "loaded ['calls']" in inner.calls
    if isinstance(module, Ours):
        original = torch.tensor(inner.train.indices)
        assert all(torch.equal(b.x[:, 0].long(), 2 * original[b.index]) for b in module.batches)


def test_setup_runs_again_after_the_wrapped_teardown_and_draws_the_same():
    inner = Hooked()
    wrap = Wrap(inner, label_noise=Symmetric(0.4))
    trainer().fit(Theirs(), wrap)
    checksum, labels = wrap.checksum, wrap.given_labels
    trainer().fit(Theirs(), wrap)
    assert inner.setups == ["fit", "fit"]
    assert wrap.checksum == checksum
    assert np.array_equal(wrap.given_labels, labels)


def test_a_second_setup_with_other_samples_is_an_error():
    class Restless(Hooked):
        def setup(self, stage):
            self.train = self.val = Subset(Numbered(), np.random.default_rng().permutation(SIZE)[:150].tolist())

    wrap = Wrap(Restless())
    wrap.setup("fit")
    wrap.teardown("fit")
    with pytest.raises(ValueError, match="Restless has other training samples or labels at its second setup"):
        wrap.setup("fit")


def test_an_exception_reaches_the_wrapped_module():
    class Fails(Theirs):
        def training_step(self, batch, _):
            raise RuntimeError("boom")

    inner = Hooked()
    with pytest.raises(RuntimeError, match="boom"):
        trainer().fit(Fails(), Wrap(inner))
    assert "exception boom" in inner.calls


def test_lightning_sees_only_hooks_that_the_wrapped_module_overrides():
    names = ("val_dataloader", "test_dataloader", "predict_dataloader", "on_after_batch_transfer")
    assert [is_overridden(name, Wrap(Foreign())) for name in names] == [False] * 4
    assert [is_overridden(name, Wrap(Hooked())) for name in names] == [True, True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", ".*many workers.*")
        warnings.filterwarnings("ignore", ".*validation_step.*")
        warnings.filterwarnings("ignore", ".*will use the implementation from `LightningModule`.*")
        module = DoublesInModule()
        trainer().fit(module, Wrap(Foreign()))
    assert {p for p, _ in module.pairs()} == set(range(0, 2 * SIZE, 2))


def test_the_hook_of_the_lightning_module_runs_where_the_wrapped_module_has_another():
    class Before(Foreign):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return [x + 0.25, y]

    class After(Ours):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            x, y = batch
            return [x * 2, y]

    module = After()
    trainer().fit(module, Wrap(Before()))
    assert all(torch.equal(b.x[:, 0], 2 * (b.index + 0.25)) for b in module.batches)


def test_a_hook_that_loses_the_labels_is_named():
    class Loses(Foreign):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0]

    with pytest.raises(ValueError, match="transfer hook of the wrapped data module returned a Tensor"):
        trainer().fit(Ours(), Wrap(Loses()))


def test_attributes_are_read_from_the_wrapped_module():
    wrap = Wrap(Split())
    assert wrap.vocabulary == 7
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = wrap.nothing_like_it


def test_from_datasets_can_be_wrapped():
    inner = L.LightningDataModule.from_datasets(Numbered(), val_dataset=Numbered(20), batch_size=16)
    module = Theirs()
    trainer(num_sanity_val_steps=0).fit(module, Wrap(inner, label_noise=Symmetric(1.0)))
    assert all(y != TRUE[p] for p, y in module.pairs())
    assert all(y == TRUE[p] for p, y in module.pairs("val"))


# resume -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "steps", "loader"),
    [
        (Theirs, (7, 14, 28), {}),
        (Theirs, (21,), {"num_workers": 2}),
        (Theirs, (21,), {"num_workers": 1, "persistent_workers": True}),
        (Ours, (21, 35), {}),
    ],
)
def test_a_resume_inside_an_epoch_ends_in_the_same_weights(make, steps, loader, tmp_path):
    def run(path=None, **kwargs):
        torch.manual_seed(0)
        module = make()
        wrap = Wrap(Foreign(Numbered(noise=True), **loader), label_noise=Symmetric(0.4))
        trainer(3, **kwargs).fit(module, wrap, ckpt_path=path, weights_only=True)
        return module.state_dict()

    # 13 steps make an epoch
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)
    whole = run(callbacks=[saver], enable_checkpointing=True)
    for step in steps:
        resumed = run(tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_data_at_a_resume_is_an_error(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="last")
    trainer(callbacks=[saver], enable_checkpointing=True).fit(Theirs(), Wrap(Foreign(), label_noise=Symmetric(0.4)))
    path = tmp_path / "last.ckpt"
    others = (Wrap(Foreign(), label_noise=Symmetric(0.2)), Wrap(Foreign(Numbered(180)), label_noise=Symmetric(0.4)))
    for other in others:
        with pytest.raises(ValueError, match="data differs from that of the checkpoint"):
            trainer(2).fit(Theirs(), other, ckpt_path=path, weights_only=True)


# refused ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (Numbered(label=float), {}, "label of training sample 0 is float, not a class id"),
        (Numbered(label=str), {}, "label of training sample 0 is str"),
        (Numbered(label=lambda y: 0.5 * np.eye(5)[y]), {}, r"float64 of shape \(5,\), and not all of it is 0 or 1"),
        (Numbered(label=lambda y: np.zeros((2, 2))), {}, r"float64 of shape \(2, 2\), not a class id"),
        (Numbered(label=lambda y: y - 1), {}, r"labels\[0\]=-1 is outside 0..3"),
        (Numbered(), {"num_classes": 4}, r"labels\[4\]=4 is outside 0..3"),
        (Numbered(layout="bare"), {}, "training set is a Tensor"),
        (Numbered(layout="ordered"), {}, r"label_key=None .* keys \['pixels', 'fine'\]"),
        (Numbered(layout="dict"), {"label_key": "fine"}, "label_key='fine'"),
        (Numbered(), {"label_key": 2}, "label_key=2 .* 2 parts"),
        (Numbered(layout="namedtuple"), {"label_key": "z"}, r"named \['x', 'y'\]"),
        (Numbered(), {"meta_size": 500}, "meta_size=500"),
    ],
)
def test_labels_that_cannot_be_corrupted_are_named(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        ready(Foreign(dataset), **arguments)


# where labels come from ---------------------------------------------------------------------------------------------


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


def test_targets_of_a_data_set_are_taken_once_a_few_samples_agree():
    data = Pictures()
    wrap = ready(Foreign(data), label_noise=Symmetric(0.4))
    assert np.array_equal(wrap.true_labels, data.targets)
    assert len(data.read) <= 12
    assert set(np.array(data.targets)[data.read]) == set(range(10))
    assert wrap.class_names == [f"c{c}" for c in range(10)]


def test_targets_are_not_believed_where_samples_disagree_or_are_transformed():
    transformed = Pictures(target_transform=lambda y: y // 2)
    assert np.array_equal(ready(Foreign(transformed)).true_labels, np.array(transformed.targets) // 2)

    class Shifted(Pictures):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x, {9: 0}.get(y, y)

    shifted = Shifted()
    assert np.array_equal(ready(Foreign(shifted)).true_labels, np.array(shifted.targets) % 9)
    assert sorted(set(shifted.read)) == list(range(300))


def test_labels_are_found_below_subsets_and_concatenations():
    first = Subset(Subset(Pictures(), range(50, 250)), torch.randperm(200)[:80].tolist())
    second = TensorDataset(torch.rand(40, 8, 8, 3), torch.arange(40) % 10)
    joined = ConcatDataset([first, Subset(second, range(30))])
    joined_labels = [int(joined[i][1]) for i in range(len(joined))]
    first.dataset.dataset.read.clear()
    wrap = ready(Foreign(joined), label_noise=Symmetric(0.4))
    assert wrap.true_labels.tolist() == joined_labels
    assert len(first.dataset.dataset.read) <= 12
    assert ready(Foreign(first)).class_names == [f"c{c}" for c in range(10)]


def test_a_subset_of_a_tensor_dataset_gets_flipped_labels():
    data = Subset(TensorDataset(torch.arange(100.0), torch.arange(100) % 4), range(10, 90))
    wrap = ready(Foreign(data), label_noise=Symmetric(0.5))
    for x, y in wrap.train_dataloader():
        assert np.array_equal(y, wrap.given_labels[x.long() - 10])
    assert np.array_equal(wrap.true_labels, np.arange(10, 90) % 4)


def test_labels_are_read_by_workers_too():
    assert np.array_equal(ready(Foreign(num_workers=2)).true_labels, TRUE)


def test_a_label_that_changes_is_an_error():
    class Restless(Numbered):
        calls = 0

        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            self.calls += 1
            return x, y if self.calls <= SIZE + 1 else (y + 1) % CLASSES

    wrap = ready(Foreign(Restless()))
    with pytest.raises(ValueError, match=r"Restless gives training sample .* the label"):
        next(iter(wrap.train_dataloader()))


# number of classes --------------------------------------------------------------------------------------------------


def test_num_classes_comes_from_the_argument_the_module_or_the_labels():
    class Says(Foreign):
        num_classes = 6

    assert Wrap(Says(), num_classes=7).num_classes == 7
    assert Wrap(Says()).num_classes == 6
    counted = Wrap(Foreign())
    assert counted.class_names == []
    with pytest.raises(ValueError, match=r"num_classes=None, and Foreign .* Give num_classes"):
        _ = counted.num_classes
    counted.setup("fit")
    assert counted.num_classes == CLASSES


def test_what_needs_setup_says_so():
    for name in ("facts", "noise_rate", "class_counts", "noisy", "transition_matrix", "checksum"):
        with pytest.raises(RuntimeError, match="Call setup"):
            getattr(Wrap(Foreign()), name)
    with pytest.raises(RuntimeError, match="Call setup"):
        Wrap(Foreign()).train_dataloader()


# splits -------------------------------------------------------------------------------------------------------------


def test_the_meta_split_is_clean_disjoint_and_balanced_in_every_batch():
    wrap = ready(Foreign(batch_size=10), label_noise=Symmetric(1.0), meta_size=40)
    assert not set(wrap.meta_index) & set(wrap.train_index)
    assert len(wrap.meta_index) + len(wrap.train_index) == SIZE
    assert np.array_equal(wrap.given_labels[wrap.meta_index], TRUE[wrap.meta_index])
    loader = wrap.meta_dataloader()
    passes = [[(x[:, 0].long().tolist(), y.tolist()) for x, y in loader] for _ in range(2)]
    for served in passes:
        assert sorted(p for xs, _ in served for p in xs) == wrap.meta_index.tolist()
        for xs, ys in served:
            assert ys == TRUE[xs].tolist()
            assert np.bincount(ys).tolist() == [2] * CLASSES
    assert passes[0] != passes[1]
    trained = {p for x, _ in wrap.train_dataloader() for p in x[:, 0].long().tolist()}
    assert trained == set(wrap.train_index)
    batch = next(iter(attached(wrap, Ours()).meta_dataloader()))
    assert torch.equal(batch.x[:, 0].long(), batch.index)
    with pytest.raises(ValueError, match="meta_size=0"):
        ready().meta_dataloader()


def test_imbalance_thins_out_the_training_split_alone():
    wrap = ready(imbalance=Exponential(10), meta_size=20)
    counts = np.bincount(TRUE[wrap.train_index])
    assert counts[0] / counts[-1] >= 9
    assert np.array_equal(wrap.class_counts, counts)
    assert sum(len(y) for _, y in wrap.train_dataloader()) == counts.sum()


@pytest.mark.parametrize("val_labels", ["given", "clean"])
def test_a_carved_validation_split_is_in_order_and_as_noisy_as_asked(val_labels):
    wrap = Wrap(Foreign(), label_noise=Symmetric(1.0), val_size=0.2, val_labels=val_labels)
    module = Theirs()
    trainer(num_sanity_val_steps=0).fit(module, wrap)
    expected = wrap.given_labels if val_labels == "given" else TRUE
    assert module.pairs("val") == [(p, expected[p]) for p in wrap.val_index]
    assert {p for p, _ in module.pairs()} == set(wrap.train_index)
    fresh = Wrap(Foreign(), label_noise=Symmetric(1.0), val_size=0.2, val_labels=val_labels)
    fresh.setup("validate")
    assert np.array_equal(fresh.val_index, wrap.val_index)


def test_scores_are_served_in_index_order_and_the_same_every_time():
    wrap = ready(Foreign(Numbered(noise=True)), label_noise=Symmetric(0.4), meta_size=20)
    first, second = (torch.cat([x for x, _ in wrap.score_dataloader()]) for _ in range(2))
    assert first[:, 0].long().tolist() == wrap.train_index.tolist()
    assert torch.equal(first, second)
    labels = torch.cat([y for _, y in wrap.score_dataloader()])
    assert np.array_equal(labels, wrap.given_labels[wrap.train_index])


# inputs -------------------------------------------------------------------------------------------------------------


def test_raw_inputs_are_stacked_as_the_data_set_gives_them():
    assert ready().raw_inputs([3, 1])[:, 0].tolist() == [3.0, 1.0]
    data = Pictures()
    assert np.array_equal(ready(Foreign(data)).raw_inputs(np.array([5, 2])), data.data[[5, 2]])
    with pytest.raises(ValueError, match="cannot be stacked"):
        ready(Foreign(Text())).raw_inputs([0, 1])
    with pytest.raises(ValueError, match="names no single input"):
        ready(Foreign(Numbered(layout="ordered")), label_key="fine").raw_inputs([0])


def test_raw_inputs_of_pictures_have_channels_first():
    from PIL import Image

    colour, grey = Pictures(transform=Image.fromarray), Pictures(transform=lambda x: Image.fromarray(x[:, :, 0]))
    assert np.array_equal(ready(Foreign(colour)).raw_inputs([4]), colour.data[[4]].transpose(0, 3, 1, 2))
    assert np.array_equal(ready(Foreign(grey)).raw_inputs([4]), grey.data[[4], None, :, :, 0])


def test_noise_that_looks_at_inputs_gets_the_clean_samples():
    data = Pictures(transform=lambda x: torch.from_numpy(x).permute(2, 0, 1))
    wrap = ready(Foreign(data), label_noise=InstanceShared(0.4))
    direct = InstanceShared(0.4)(data.targets, 10, np.random.default_rng([0, *b"label_noise"]), inputs=data.data)
    assert np.array_equal(wrap.given_labels, direct)


def test_pixel_statistics_reach_the_method():
    wrap = ready(mean=(0.5,), std=(0.25,))
    assert wrap.facts.mean == (0.5,)
    assert wrap.facts.std == (0.25,)


def test_the_command_line_can_build_it():
    noise = {"class_path": "lightning_perturb.data.Symmetric", "init_args": {"rate": 0.4}}
    inner = {"class_path": f"{BoringDataModule.__module__}.BoringDataModule"}
    wrap = {"datamodule": inner, "label_noise": noise, "num_classes": 2, "label_key": 1, "meta_size": 10}
    data = {"class_path": "lightning_perturb.data.Wrap", "init_args": wrap}
    cli = LightningCLI(
        Theirs,
        L.LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args={"data": data},
    )
    assert isinstance(cli.datamodule.datamodule, BoringDataModule)
    assert cli.datamodule.label_noise.rate == 0.4
    assert cli.datamodule.num_classes == 2
