"""Hooks and attributes of the wrapped module."""

import copy
import pickle
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from testkit.foreign import (
    SIZE,
    TRUE,
    Foreign,
    Numbered,
    Ours,
    Split,
    Theirs,
    ready,
    trainer,
)
from torch.utils.data import (
    Subset,
)

from lightning_perturb.data import Symmetric, Wrap


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


def test_copies_and_pickles_serve_the_same():
    wrap = ready(Hooked(), label_noise=Symmetric(0.4))
    for other in (copy.deepcopy(wrap), pickle.loads(pickle.dumps(wrap))):
        assert other.datamodule is not wrap.datamodule
        assert other.val_dataloader.__self__ is other.datamodule
        for (x, y), (x_other, y_other) in zip(wrap.train_dataloader(), other.train_dataloader(), strict=True):
            assert torch.equal(x, x_other)
            assert torch.equal(y, y_other)
