"""The data family in a trainer: the form of batches, and how a run is resumed."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from testkit.pixels import CLASSES, Y_TEST, X, make
from torch import nn

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.core.needs import Needs
from lightning_perturb.data import (
    CropFlip,
    Symmetric,
)


class Recorded(PerturbationModule):
    """Keeps every training batch it gets."""

    def __init__(self, **options):
        net = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, CLASSES))
        super().__init__(net, CLASSES, optimizer=lambda p: torch.optim.SGD(p, lr=0.01), **options)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch))
        return super().training_step(batch, batch_idx)


class TwoViews(Recorded):
    needs = Needs(views=2)


class Foreign(L.LightningModule):
    """A module of another project."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(36, CLASSES)
        self.seen = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(batch)
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        _, y = batch
        self.log("val/mean", y.float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(**options):
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**{**quiet, "enable_checkpointing": False, "max_epochs": 1, **options})


def test_a_method_gets_batches_and_a_foreign_module_pairs():
    data = make(label_noise=Symmetric(0.4), val_size=0.2)
    module = Recorded()
    trainer().fit(module, data)
    batch = module.seen[0][1]
    assert isinstance(batch, Batch)
    assert torch.equal(batch.x, data.normalize(torch.from_numpy(X)[batch.index]))

    data = make(label_noise=Symmetric(0.4), val_size=0.2)
    foreign = Foreign()
    trainer().fit(foreign, data)
    assert all(type(pair) is tuple and len(pair) == 2 for pair in foreign.seen)
    assert torch.equal(foreign.seen[0][0], batch.x)
    assert torch.equal(foreign.seen[0][1], batch.y)


def test_views_are_augmented_independently_and_the_first_is_the_usual_one():
    single, double = Recorded(), TwoViews()
    for module in (single, double):
        trainer().fit(module, make(augment=CropFlip(padding=2)))
    for (_, one), (_, two) in zip(single.seen, double.seen, strict=True):
        assert len(two.x) == 2
        assert torch.equal(two.index, one.index)
        assert torch.equal(two.x[0], one.x)
        assert (two.x[1] != one.x).flatten(1).any(1).float().mean() > 0.7


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_pixels_arrive_in_the_type_of_the_network(precision):
    module = Recorded()
    run = trainer(precision=precision)
    run.fit(module, make(val_size=0.2))
    run.test(module, make(), verbose=False)
    expected = {"64-true": torch.float64, "bf16-mixed": torch.float32}[precision]
    assert module.seen[0][1].x.dtype == expected
    assert module.seen[0][1].y.dtype == torch.int64


def test_prediction_serves_every_test_sample_once():
    module = Recorded()
    run = trainer()
    predictions = run.predict(module, make(eval_batch_size=4))
    assert torch.cat([part["index"] for part in predictions]).tolist() == list(range(len(Y_TEST)))


class Stop(Exception):
    """Stands for a kill."""


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            raise Stop


def order(module):
    return [(epoch, batch.index.tolist(), batch.x.flatten().tolist()) for epoch, batch in module.seen]


RESUMED = {"label_noise": Symmetric(0.4), "augment": CropFlip(padding=2)}


@pytest.fixture(scope="module")
def uninterrupted():
    module = Recorded()
    trainer(max_epochs=2).fit(module, make(**RESUMED))
    return order(module)


# 4 batches an epoch: the checkpoint falls inside an epoch, before its last batch, on its end, and in the second
@pytest.mark.parametrize(("saved", "workers"), [(1, 0), (3, 2), (3, 0), (4, 0), (5, 0)])
def test_a_resume_goes_on_with_the_batch_that_comes_next(tmp_path, uninterrupted, saved, workers):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=saved, save_top_k=-1)
    stop = StopAfter(saved + 1)
    with pytest.raises(Stop):
        trainer(max_epochs=2, enable_checkpointing=True, callbacks=[keep, stop]).fit(Recorded(), make(**RESUMED))
    resumed = Recorded()
    data = make(**RESUMED, num_workers=workers)
    trainer(max_epochs=2).fit(resumed, data, ckpt_path=str(tmp_path / f"step={saved}.ckpt"))
    assert len(uninterrupted) == 8
    assert order(resumed) == uninterrupted[saved:]


SAVED = {"label_noise": Symmetric(0.4), "val_size": 0.2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "one_epoch.ckpt"
    run = trainer()
    run.fit(Recorded(), make(**SAVED))
    run.save_checkpoint(path)
    return str(path)


@pytest.mark.parametrize(
    "other",
    [
        {"label_noise": Symmetric(0.3)},
        {"seed": 1},
        {"val_size": 0.3},
        {"meta_size": 3},
        {"train_size": 50},
    ],
    ids=["noise", "seed", "val_size", "meta_size", "train_size"],
)
def test_other_data_at_a_resume_is_an_error(checkpoint, other):
    with pytest.raises(ValueError, match=r"data differs from that of the checkpoint .* Resume with the same data"):
        trainer(max_epochs=2).fit(Recorded(), make(**{**SAVED, **other}), ckpt_path=checkpoint)


def test_other_data_may_be_tested(checkpoint):
    trainer().test(Recorded(), make(seed=1), ckpt_path=checkpoint, verbose=False)


def test_the_same_data_may_be_resumed_with_another_batch_size(checkpoint):
    module = Recorded()
    trainer(max_epochs=2).fit(module, make(**SAVED, batch_size=20), ckpt_path=checkpoint)
    assert [(epoch, len(batch)) for epoch, batch in module.seen] == [(1, 20), (1, 20), (1, 8)]
