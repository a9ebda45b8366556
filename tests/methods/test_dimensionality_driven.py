"""Dimensionality-driven learning."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, WithFeatures, arrays, fit, sgd
from testkit.training import NETS, Recipe, Saves, different, digits, snapshot, trainer_of
from testkit.training import fit as fit_digits
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.functional import local_dimensionality
from lightning_perturb.methods import D2L

FEW = {"neighbours": 3, "batches": 3, "drawn_size": 10}


def make(cls=D2L, **options):
    torch.manual_seed(0)
    return cls(WithFeatures(), CLASSES, optimizer=sgd, **{**FEW, **options}).double()


class Scripted(D2L):
    """Finds the dimensionalities that a test has in mind."""

    script: list[float] = []

    def dimensionality(self):
        return self.script[self.current_epoch]


class Watch(Callback):
    def __init__(self):
        self.steps, self.ends, self.starts = [], {}, {}

    def on_before_backward(self, trainer, module, loss):
        self.starts.setdefault(trainer.current_epoch, weights(module))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        logits, y = outputs["logits"], batch.y
        alpha = float(module.alpha)
        plain, own = F.cross_entropy(logits, y), F.cross_entropy(logits, logits.argmax(1))
        self.steps.append(
            (trainer.current_epoch, alpha, float(outputs["loss"]), float(alpha * plain + (1 - alpha) * own))
        )

    def on_train_epoch_end(self, trainer, module):
        self.ends[trainer.current_epoch] = weights(module)


def weights(module):
    return torch.cat([p.detach().flatten().clone() for p in module.net.parameters()])


@pytest.mark.parametrize("back", [True, False])
def test_after_the_turn_labels_give_way(back):
    class Here(Scripted):
        # a fall, a bend that is too early, a window without one, a turn in epoch 5
        script = [9.0, 9.9, 4.0, 3.0, 2.0, 5.0, 3.0, 8.0]

    watch, module = Watch(), make(Here, init_epochs=1, window=3, roll_back=back)
    fit(module, arrays(meta_size=0), max_epochs=8, callbacks=[watch])
    for epoch, alpha, loss, expected in watch.steps:
        trust = math.exp(-epoch / 8 * Here.script[epoch] / 2.0) if epoch >= 5 else 1.0
        assert alpha == pytest.approx(trust)
        assert loss == pytest.approx(expected)
    # in epoch 5 the network is the one that epoch 4 began with, or goes on
    torch.testing.assert_close(watch.starts[5], watch.ends[3] if back else watch.ends[4])
    torch.testing.assert_close(watch.starts[6], watch.ends[5])


def test_features_that_tell_nothing_leave_the_last_dimensionality():
    class Here(Scripted):
        script = [float("nan"), 3.0, float("nan"), float("inf"), 2.0]

    module = make(Here, init_epochs=9)
    fit(module, arrays(meta_size=0), max_epochs=5)
    assert module.dimensions.tolist() == [1.0, 3.0, 3.0, 3.0, 2.0]
    assert float(module.lowest) == 1.0


class Look(Callback):
    """The dimensionality as it is, and by hand from the whole training set."""

    def __init__(self):
        self.found = []

    def on_train_epoch_end(self, trainer, module):
        data = trainer.datamodule
        state, statistics = torch.get_rng_state(), [b.clone() for b in module.net.buffers()]
        found = module.dimensionality()
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(module.net.buffers(), statistics, strict=True))
        assert module.net.training
        index = torch.from_numpy(data.train_index)
        from lightning_perturb.core import random as keyed

        draws = keyed.uniform(module._draw_seed, "dimensionality", trainer.current_epoch, index)
        chosen = index[draws.argsort()[:30]]
        with torch.no_grad():
            features = module.net.eval()(data.raw_inputs(chosen).double())[1]
        module.net.train()
        by_hand = [local_dimensionality(part, 3).mean() for part in features.split(10)]
        self.found.append((found, float(np.mean(by_hand))))


def test_samples_are_drawn_in_batches():
    look = Look()
    fit(make(), arrays(meta_size=0, eval_batch_size=7), max_epochs=2, callbacks=[look])
    assert len(look.found) == 2
    for found, expected in look.found:
        assert found == pytest.approx(expected)
    assert look.found[0] != look.found[1]


def test_a_small_training_set_is_one_batch():
    module = make(drawn_size=100, batches=2)
    fit(module, arrays(meta_size=0))
    assert 0.5 < float(module.dimensions[-1]) < 10


def test_a_rank_s_empty_batch_is_passed_over():
    data = arrays(meta_size=0, eval_batch_size=7)
    whole, served = make(), data.score_dataloader
    fit(whole, data)
    data.score_dataloader = lambda: (part for batch in served() for part in (batch, batch.rows(slice(0))))
    again = make()
    fit(again, data)
    assert torch.equal(again.dimensions, whole.dimensions)


def test_of_a_loader_of_ones_own_few_samples_are_looked_at_too():
    x, y = digits()
    loader = DataLoader(TensorDataset(x[:200].float(), y[:200]), 50)
    seen = []
    module = D2L(NETS["mlp"](), 10, neighbours=2, batches=1, drawn_size=4)
    module.net.register_forward_hook(lambda net, inputs, output: None if net.training else seen.append(len(output)))
    trainer_of(max_epochs=1).fit(module, loader)
    # 4 are wanted, and 24 of 200 drawn in the mean
    assert 4 <= sum(seen) < 100


@pytest.mark.parametrize("at", ["batch-step=5", "epoch-step=6", "batch-step=15"])
def test_resumed_before_and_after_the_turn(at, tmp_path):
    # 6 batches an epoch
    options = {"init_epochs": 0, "window": 1, "neighbours": 3, "batches": 2, "drawn_size": 20}
    recipe = Recipe(D2L, options, net="dropout", trainer={"max_epochs": 4})
    saves = [Saves(tmp_path, "batch", every_n_train_steps=5), Saves(tmp_path, "epoch", save_on_train_epoch_end=True)]
    trainer = fit_digits(recipe, callbacks=saves)
    assert bool(trainer.lightning_module.turned)
    whole = snapshot(trainer)
    resumed = snapshot(fit_digits(recipe, seed=9, ckpt_path=tmp_path / f"{at}.ckpt"))
    assert different(whole, resumed) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"neighbours": 1}, "neighbours=1 cannot be found among drawn_size=10"),
        ({"neighbours": 10}, "neighbours=10 cannot be found among drawn_size=10"),
        ({"batches": 0}, "batches=0"),
        ({"window": 0}, "window=0"),
        ({"init_epochs": -1}, "init_epochs=-1"),
        ({"total_epochs": 0}, "total_epochs=0"),
    ],
)
def test_faults_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


def test_an_unknown_end_is_named():
    class Here(Scripted):
        script = [1.0, 2.0, 3.0]

    with pytest.raises(ValueError, match="total_epochs=None takes the Trainer's max_epochs, which is -1"):
        fit(make(Here, init_epochs=0, window=1), arrays(meta_size=0), max_epochs=-1, max_steps=20)
