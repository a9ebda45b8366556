"""Class-aware re-sampling through data modules, deferred and resumed, and class-balanced fine-tuning."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    Saves,
    TinyConv,
    different,
    digits,
    fit,
    resume,
    sgd,
    snapshot,
    tiny_data,
    trainer_of,
)
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.data import Exponential, Wrap
from lightning_perturb.methods import ClassBalancedFineTuning, CrossEntropy, DisturbLabel, ReSampling

TAIL = {"samples": 600, "noise": 0.0, "imbalance": Exponential(20.0), "batch_size": 20}


class Seen(Callback):
    """Labels, indices and inputs of every batch, by epoch."""

    def __init__(self):
        self.labels, self.index, self.x = {}, {}, {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        for name, value in (("labels", batch.y), ("index", batch.index), ("x", batch.x)):
            getattr(self, name).setdefault(trainer.current_epoch, []).append(value)

    def counts(self, epoch):
        return torch.bincount(torch.cat(self.labels[epoch]), minlength=CLASSES)


def test_batches_hold_the_classes_alike_often_from_an_epoch_on():
    seen = Seen()
    trainer = fit(Recipe(ReSampling, {"from_epoch": 1}, data=TAIL, trainer={"max_epochs": 2}), callbacks=[seen])
    natural = torch.from_numpy(trainer.datamodule.class_counts)
    assert torch.equal(seen.counts(0), natural)
    assert natural.max() >= 15 * natural.min()
    balanced = seen.counts(1)
    assert balanced.sum() == natural.sum()
    assert balanced.max() - balanced.min() <= 1
    assert all(torch.bincount(y, minlength=CLASSES).min() >= 1 for y in seen.labels[1][:-1])
    # the method is told the classes' true frequencies all the same
    assert torch.equal(trainer.lightning_module.class_counts, natural)


def test_the_data_module_can_ask_for_it_too():
    by_data, by_method = Seen(), Seen()
    fit(Recipe(CrossEntropy, data={**TAIL, "balanced_from": 0}, trainer={"max_epochs": 1}), callbacks=[by_data])
    fit(Recipe(ReSampling, data={**TAIL, "balanced_from": 5}, trainer={"max_epochs": 1}), callbacks=[by_method])
    for one, other in zip(by_data.index[0], by_method.index[0], strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="balanced_from=-1"):
        tiny_data(balanced_from=-1)


def test_a_sample_that_comes_again_is_augmented_and_drawn_for_anew():
    seen, draws = Seen(), []

    class Watched(DisturbLabel):
        def uniform(self, stream, batch, *shape):
            draws.append(super().uniform(stream, batch, *shape))
            return draws[-1]

    fit(
        Recipe(Watched, data={**TAIL, "augment": True, "balanced_from": 0}, trainer={"max_epochs": 1}), callbacks=[seen]
    )
    index, x, numbers = (torch.cat(part) for part in (seen.index[0], seen.x[0], draws))
    same = index == int(torch.bincount(index).argmax())
    assert int(same.sum()) >= 6
    assert len(x[same].unique(dim=0)) > 3
    assert len(numbers[same].unique()) == int(same.sum())


def test_it_is_named_where_the_loader_is_the_users():
    x, y = digits()
    loader = DataLoader(TensorDataset(x[:40].float(), y[:40]), 8)
    with pytest.raises(ValueError, match=r"ReSampling trains on batches of balanced classes.*Wrap\(datamodule"):
        trainer_of(max_epochs=1).fit(ReSampling(NETS["mlp"](), CLASSES, optimizer=sgd), loader)


class Foreign(L.LightningDataModule):
    def train_dataloader(self):
        x, y = digits()
        few = torch.cat([torch.arange(len(y))[y == c][: 40 // (c + 1)] for c in range(CLASSES)])
        return DataLoader(TensorDataset(x[few].float(), y[few]), 10, shuffle=True)


def test_wrapped_data_modules_re_sample_too():
    seen = Seen()
    data = Wrap(Foreign(), num_classes=CLASSES)
    trainer = trainer_of(max_epochs=2, callbacks=[seen])
    trainer.fit(ReSampling(NETS["mlp"](), CLASSES, optimizer=sgd, from_epoch=1), data)
    assert torch.equal(seen.counts(0), torch.from_numpy(data.class_counts))
    assert seen.counts(1).max() - seen.counts(1).min() <= 1


def test_deferred_re_sampling_is_resumed_exactly(tmp_path):
    recipe = Recipe(
        ReSampling, {"from_epoch": 1}, net="dropout", data={**TAIL, "samples": 200, "augment": True, "num_workers": 0}
    )
    whole = snapshot(fit(recipe, callbacks=[Saves(tmp_path, "batch", every_n_train_steps=3)]))
    paths = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[-1]))[:-1]
    assert len(paths) >= 3
    assert all(different(whole, snapshot(resume(recipe, path))) == [] for path in paths)


# fine-tuning ------------------------------------------------------------------------------------------------------


def state_of(module):
    return {k: v.clone() for k, v in module.net.state_dict().items()}


class Keeps(Callback):
    """The network at the start of each epoch."""

    def __init__(self):
        self.nets = {}

    def on_train_epoch_start(self, trainer, module):
        self.nets[trainer.current_epoch] = state_of(module)


@pytest.mark.parametrize("balance", ["sampling", "weights"])
def test_the_classifier_alone_is_tuned(balance):
    keeps, seen = Keeps(), Seen()
    options = {"from_epoch": 1, "tuned": "classifier", "balance": balance}
    recipe = Recipe(ClassBalancedFineTuning, options, net="conv-norm-dropout", data=TAIL, trainer={"max_epochs": 2})
    module = fit(recipe, callbacks=[keeps, seen]).lightning_module
    first, before, after = keeps.nets[0], keeps.nets[1], state_of(module)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}
    assert {name for name in before if not torch.equal(first[name], before[name])} == set(before)
    spread = seen.counts(1)
    assert (spread.max() - spread.min() <= 1) == (balance == "sampling")
    assert module.net.training


def test_everything_is_tuned_by_default():
    keeps = Keeps()
    recipe = Recipe(ClassBalancedFineTuning, {"from_epoch": 1}, net="conv", data=TAIL, trainer={"max_epochs": 2})
    module = fit(recipe, callbacks=[keeps]).lightning_module
    after = state_of(module)
    assert all(not torch.equal(keeps.nets[1][name], after[name]) for name in after)


def test_the_first_phase_is_cross_entropy():
    for balance in ("sampling", "weights"):
        options = {"from_epoch": 2, "balance": balance, "tuned": "classifier"}
        recipe = Recipe(ClassBalancedFineTuning, options, data=TAIL, trainer={"max_epochs": 2})
        one, plain = state_of(fit(recipe).lightning_module), state_of(fit(Recipe(CrossEntropy, data=TAIL,
                     trainer={"max_epochs": 2})).lightning_module)  # fmt: skip
        assert all(torch.equal(one[name], plain[name]) for name in plain)


def test_weights_are_inverse_frequencies():
    trainer = fit(Recipe(ClassBalancedFineTuning, {"from_epoch": 0, "balance": "weights"}, data=TAIL))
    counts = trainer.datamodule.class_counts
    expected = CLASSES / counts / (1 / counts).sum()
    np.testing.assert_allclose(trainer.lightning_module.class_weight.numpy(), expected, rtol=1e-5)
    assert not ClassBalancedFineTuning(TinyConv(), CLASSES).needs_class_counts


def test_warm_up_comes_before_both():
    module = ReSampling(TinyConv(), CLASSES, from_epoch=1, warmup_epochs=3)
    assert module.needs.balanced_from == 3
    assert module.phases() == [(0, "warmup"), (3, "main"), (3, "deferred")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "sample"}, "balance='sample' is unknown"),
        ({"tuned": "head"}, "tuned='head' is unknown"),
        ({"from_epoch": -1}, "from_epoch=-1"),
        ({"tuned": "classifier", "classifier": "body"}, "name='body' is no nn.Linear"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedFineTuning(TinyConv(), CLASSES, **options)


def test_fine_tuning_of_the_classifier_on_two_ranks(ranks):
    recipe = Recipe(
        ClassBalancedFineTuning, {"from_epoch": 1, "tuned": "classifier"}, net="conv",
        data={"samples": 64, "batch_size": 4, "noise": 0.0}, trainer={"max_epochs": 2, "strategy": "ddp", "devices": 2},
    )  # fmt: skip
    first, second = ranks(head_of, recipe)
    assert torch.equal(first, second)


def head_of(recipe):
    return fit(recipe).lightning_module.net.head.weight.detach()
