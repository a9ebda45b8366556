"""Evaluation under attack."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.foreign import Foreign
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    Saves,
    different,
    digits,
    fit,
    module_of,
    snapshot,
    tiny_data,
    trainer_of,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_perturb.attacks import FGSM, PGD
from lightning_perturb.callbacks import AttackedEvaluation, RobustnessCurve
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.data import Arrays, Tasks, Wrap
from lightning_perturb.functional import pgd
from lightning_perturb.methods import BinaryCrossEntropy, CrossEntropy, NARLMultiTask

ATTACK = PGD(0.1, 0.03, 3)
RECIPE = Recipe(CrossEntropy, net="conv-norm-dropout", data={"val_size": 24})
DOUBLE = {"precision": "64-true"}
TWO = {**DOUBLE, "strategy": "ddp", "devices": 2}


def outcome(recipe, *callbacks, stage="test", data=None, module=None):
    """The numbers of an evaluation of an untrained module, which is not right by chance alone on easy labels."""
    seed_everything(3, verbose=False)
    module = module_of(recipe) if module is None else module
    data = tiny_data(**{"noise": 0.0, **recipe.data}) if data is None else data
    return getattr(trainer_of(callbacks=list(callbacks), **recipe.trainer), stage)(module, data, verbose=False)[0]


def trained(recipe, **options):
    """A module that has learned something, for evaluations."""
    recipe = recipe.but(data={"noise": 0.0, "samples": 480, **recipe.data}, trainer={"max_epochs": 2})
    return fit(recipe, **options).lightning_module


@pytest.fixture(scope="module")
def learned():
    return trained(RECIPE)


class Inputs(Callback):
    """What the network gets in the test."""

    def __init__(self):
        self.batches = []

    def on_test_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self.batches.append((batch.x.clone(), batch.y.clone()))


@pytest.mark.parametrize("inference_mode", [True, False])
def test_it_logs_what_is_left_in_pixels(learned, inference_mode):
    attack = PGD(0.1, 0.03, 3, random_start=False)
    callback, inputs = AttackedEvaluation(attack), Inputs()
    recipe = RECIPE.but(data={"eval_batch_size": 20}, trainer={"inference_mode": inference_mode})
    data = tiny_data(noise=0.0, **recipe.data)
    metrics = outcome(recipe, callback, inputs, module=learned, data=data)
    x, y = (torch.cat(parts).clone() for parts in zip(*inputs.batches, strict=True))
    mean, std = (torch.tensor(value).view(1, 1, 1, 1) for value in (data.mean, data.std))
    learned.eval()
    delta = pgd(learned.net, x, y, 0.1 / std, 0.03 / std, 3, low=-mean / std, high=(1 - mean) / std)
    with torch.no_grad():
        right = learned.net(x).argmax(1) == y
        robust = right & (learned.net(x + delta).argmax(1) == y)
    assert metrics["test/acc"] == pytest.approx(float(right.float().mean()))
    assert metrics["test/robust_acc"] == pytest.approx(float(robust.float().mean()))
    assert 0 < metrics["test/robust_acc"] < metrics["test/acc"] - 0.1


class GradsKept(Callback):
    """Gradients that stand between batches, as accumulation leaves them."""

    def __init__(self):
        self.found = []

    def on_validation_start(self, trainer, module):
        for p in module.parameters():
            p.grad = torch.full_like(p, 0.5)

    def on_validation_end(self, trainer, module):
        self.found += [bool((p.grad == 0.5).all()) for p in module.parameters()]


@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed"}])
def test_training_is_the_same_to_the_bit(options):
    recipe = RECIPE.but(trainer={"max_epochs": 2, "num_sanity_val_steps": 1, **options})
    grads = GradsKept()
    plain = fit(recipe)
    attacked = fit(recipe, callbacks=[AttackedEvaluation(ATTACK), grads])
    assert different(snapshot(plain), snapshot(attacked)) == []
    assert grads.found
    assert all(grads.found)
    shared = {k: float(v) for k, v in plain.callback_metrics.items()}
    found = {k: float(v) for k, v in attacked.callback_metrics.items()}
    assert 0 <= found.pop("val/robust_acc") <= found["val/acc"]
    assert found == shared


def metrics_of(recipe, path, **options):
    module = module_of(recipe)
    module.load_state_dict(torch.load(path, weights_only=True))
    return outcome(recipe, AttackedEvaluation(PGD(0.1, 0.05, 2, restarts=2), **options), module=module)


@pytest.mark.parametrize("most", [None, 31])
def test_ranks_count_every_sample_once(ranks, learned, tmp_path, most):
    path = tmp_path / "net.pt"
    torch.save(learned.state_dict(), path)
    recipe = RECIPE.but(data={"test_samples": 83, "eval_batch_size": 9})
    expected = metrics_of(recipe.but(trainer=DOUBLE), path, max_samples=most)
    robust = expected["test/robust_acc"]
    assert robust * (most or 83) == pytest.approx(round(robust * (most or 83)), abs=1e-4)
    assert 0 < robust < expected["test/acc"]
    for found in ranks(metrics_of, recipe.but(trainer=TWO), path, max_samples=most):
        assert found == pytest.approx(expected, abs=1e-6)


def test_ranks_without_a_sample(ranks, learned, tmp_path):
    path = tmp_path / "net.pt"
    torch.save(learned.state_dict(), path)
    recipe = RECIPE.but(data={"test_samples": 1})
    expected = metrics_of(recipe.but(trainer=DOUBLE), path)
    for found in ranks(metrics_of, recipe.but(trainer=TWO), path):
        assert found["test/robust_acc"] == expected["test/robust_acc"]


def test_a_choice_of_samples_is_of_the_whole_set(learned):
    class Counted(AttackedEvaluation):
        def finish(self, trainer, module, stage, counts):
            self.counted = counts[0]

    few = Counted(ATTACK, max_samples=7)
    outcome(RECIPE, few, module=learned)
    assert few.counted == 7
    chosen = few._chosen[0]
    assert len(set(chosen.tolist())) == 7
    assert chosen.max() > 10, "not the first ones: sets are often sorted by class"
    all_of_them = Counted(ATTACK, max_samples=1000)
    outcome(RECIPE, all_of_them, module=learned)
    assert all_of_them.counted == 50


def test_epochs_and_stages():
    class Epochs(AttackedEvaluation):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.seen = []

        def finish(self, trainer, module, stage, counts):
            self.seen.append("sanity" if trainer.sanity_checking else trainer.current_epoch)

    callback = Epochs(FGSM(), every_n_epochs=2)
    fit(RECIPE.but(net="mlp", trainer={"max_epochs": 5, "num_sanity_val_steps": 1}), callbacks=[callback])
    assert callback.seen == ["sanity", 1, 3, 4]
    only = AttackedEvaluation(FGSM(), stages=["test"])
    trainer = fit(RECIPE.but(net="mlp"), callbacks=[only])
    assert "val/robust_acc" not in trainer.callback_metrics
    (metrics,) = trainer.validate(trainer.lightning_module, trainer.datamodule, verbose=False)
    assert "val/robust_acc" not in metrics
    (metrics,) = trainer.test(trainer.lightning_module, trainer.datamodule, verbose=False)
    assert "test/robust_acc" in metrics


def test_a_checkpoint_may_watch_it_and_a_resume_finds_it_again(tmp_path):
    recipe = RECIPE.but(net="mlp", trainer={"max_epochs": 2})
    saves = Saves(tmp_path, "best", monitor="val/robust_acc", mode="max")
    whole = fit(recipe, callbacks=[AttackedEvaluation(ATTACK), saves])
    rest = fit(recipe, seed=5, callbacks=[AttackedEvaluation(ATTACK)], ckpt_path=tmp_path / "best-step=5.ckpt")
    assert rest.global_step == 10
    assert rest.callback_metrics["val/robust_acc"] == whole.callback_metrics["val/robust_acc"]


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"precision": "64-true"}])
def test_precisions_and_memory_formats(learned, options):
    recipe = RECIPE.but(options={"channels_last": True}, trainer=options)
    module = module_of(recipe)
    module.load_state_dict(learned.state_dict())
    metrics = outcome(recipe, AttackedEvaluation(ATTACK), module=module)
    plain = outcome(RECIPE, AttackedEvaluation(ATTACK), module=learned)
    assert metrics["test/robust_acc"] == pytest.approx(plain["test/robust_acc"], abs=0.05)


def test_half_precision_gradients_are_warned_of(monkeypatch):
    trainer = trainer_of()
    monkeypatch.setattr(type(trainer), "precision", "16-mixed")
    with pytest.warns(UserWarning, match="rounds the small gradients"):
        AttackedEvaluation().setup(trainer, module_of(RECIPE), "test")


# other projects ---------------------------------------------------------------------------------------------------


class Theirs(LightningModule):
    """A module that knows nothing of this package."""

    def __init__(self, wrapped=False):
        super().__init__()
        self.body, self.wrapped = NETS["mlp"](), wrapped

    def forward(self, x):
        logits = self.body(x)
        return {"logits": logits} if self.wrapped else (logits, None)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/acc", (self(x)[0].argmax(1) == y).float().mean(), batch_size=len(y))


def test_modules_and_loaders_of_other_projects():
    x, y = digits()
    loader = DataLoader(TensorDataset(x[:50].float() / 255, y[:50]), 16)
    seed_everything(0, verbose=False)
    module = Theirs()
    for data in (tiny_data(noise=0.0), loader):
        plain = trainer_of(callbacks=[AttackedEvaluation(PGD(0.0, steps=1))]).test(module, data, verbose=False)[0]
        assert plain["test/robust_acc"] == pytest.approx(plain["test/acc"], abs=1e-6)
        strong = trainer_of(callbacks=[AttackedEvaluation(PGD(0.5))]).test(module, data, verbose=False)[0]
        assert strong["test/robust_acc"] < plain["test/acc"]
        some = trainer_of(callbacks=[AttackedEvaluation(PGD(0.0, steps=1), max_samples=20)])
        right = 20 * some.test(module, data, verbose=False)[0]["test/robust_acc"]
        assert right == pytest.approx(round(right), abs=1e-4)
    with torch.no_grad():
        first = (module(x[:20].float() / 255)[0].argmax(1) == y[:20]).sum()
    assert right == pytest.approx(float(first), abs=1e-4), "the first ones of a loader that names none"


def test_wrapped_data_say_their_normalisation():
    class Normalised(Foreign):
        def test_dataloader(self):
            return self.train_dataloader()

    x, y = digits()
    theirs = Normalised(TensorDataset((x[:64].float() / 255 - 0.5) / 0.25, y[:64]), shuffle=False)
    module = module_of(Recipe(CrossEntropy))
    with pytest.raises(ValueError, match="Give mean= and std="):
        outcome(RECIPE, AttackedEvaluation(FGSM()), module=module, data=Wrap(theirs, 10))
    by_data = outcome(
        RECIPE, AttackedEvaluation(FGSM()), module=module, data=Wrap(theirs, 10, mean=(0.5,), std=(0.25,))
    )
    space = InputSpace(mean=(0.5,), std=(0.25,))
    by_hand = outcome(RECIPE, AttackedEvaluation(FGSM(space=space)), module=module, data=theirs)
    assert by_data["test/robust_acc"] == by_hand["test/robust_acc"]


# what is refused --------------------------------------------------------------------------------------------------


def test_several_labels_are_refused():
    with pytest.raises(ValueError, match="BinaryCrossEntropy predicts several labels a sample"):
        outcome(Recipe(BinaryCrossEntropy, data={"multi_label": True}), AttackedEvaluation())


def test_inputs_that_are_no_pixels_are_named():
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    data = Arrays(x, np.arange(40) % 10, x, np.arange(40) % 10)
    with pytest.raises(ValueError, match=r"clip=True expects pixels of \[0, 1\].*clip=False"):
        outcome(Recipe(CrossEntropy), AttackedEvaluation(), data=data)
    free = PGD(0.5, steps=2, space=InputSpace("input", clip=False))
    assert "test/robust_acc" in outcome(Recipe(CrossEntropy), AttackedEvaluation(free), data=data)


def test_modules_without_logits_are_named():
    module = Theirs(wrapped=True)
    module.test_step = lambda batch, batch_idx: None
    with pytest.raises(ValueError, match=r"Theirs\(x\) gives dict where an attack reads logits"):
        trainer_of(callbacks=[AttackedEvaluation()]).test(module, tiny_data(), verbose=False)


def test_two_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="both report 'robust_acc'"):
        outcome(RECIPE, AttackedEvaluation(), AttackedEvaluation(FGSM()))
    metrics = outcome(RECIPE, AttackedEvaluation(FGSM(0.0)), AttackedEvaluation(FGSM(0.5), name="under_fgsm"))
    assert metrics["test/under_fgsm"] < metrics["test/robust_acc"] == pytest.approx(metrics["test/acc"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ["train"]}, "stages='train'"),
        ({"every_n_epochs": 0}, "every_n_epochs=0"),
        ({"max_samples": 0}, "max_samples=0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        AttackedEvaluation(**options)


# several networks -------------------------------------------------------------------------------------------------


def test_every_task_is_attacked_by_its_own_network():
    data = Tasks([tiny_data(test_samples=n, meta_size=20, mean=(0.3,), std=(0.4,)) for n in (30, 20)])
    seed_everything(0, verbose=False)
    module = NARLMultiTask(NETS["mlp"](), CLASSES, tasks=2)
    # the second network takes everything for a 3
    with torch.no_grad():
        for parameter in module.other_nets[0].parameters():
            parameter.zero_()
        [layer for layer in module.other_nets[0].modules() if isinstance(layer, nn.Linear)][-1].bias[3] = 5.0
    nothing = trainer_of(callbacks=[AttackedEvaluation(FGSM(0.0))])
    (first, *_) = nothing.test(module, data, verbose=False)
    assert first["test/robust_acc"] == pytest.approx(first["test/acc"], abs=1e-6)
    assert module._task == 0
    strong = trainer_of(callbacks=[AttackedEvaluation(PGD(1.0, steps=2))])
    (second, *_) = strong.test(module, data, verbose=False)
    threes = int((digits()[1][-20:] == 3).sum())
    assert threes / 50 - 1e-6 <= second["test/robust_acc"] < first["test/acc"]


# the curve --------------------------------------------------------------------------------------------------------


def test_accuracy_against_the_radius(learned, tmp_path):
    curve = RobustnessCurve(PGD(steps=3), radii=(0.3, 0.05, 0.1))
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    metrics = outcome(RECIPE.but(trainer={"logger": logger}), curve, AttackedEvaluation(ATTACK), module=learned)
    assert list(curve.curve) == [0.0, 0.05, 0.1, 0.3]
    values = list(curve.curve.values())
    assert values[0] == pytest.approx(metrics["test/acc"])
    assert values == sorted(values, reverse=True)
    assert values[0] > values[2] > values[3]
    assert [metrics[f"test/robust_acc_{r}"] for r in ("0.05", "0.1", "0.3")] == pytest.approx(values[1:])
    (path,) = curve.paths
    assert path == tmp_path / "run" / "version_0" / "robust_acc_test.png"
    assert path.stat().st_size > 1000
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["robust_acc_test"]


def test_a_tested_checkpoint_has_a_figure_of_its_own(tmp_path):
    curve = RobustnessCurve(FGSM(), radii=[0.1], stages=["val", "test"], folder=str(tmp_path / "figures"))
    recipe = RECIPE.but(net="mlp", trainer={"max_epochs": 1, "num_sanity_val_steps": 1})
    trainer = fit(recipe, callbacks=[curve, Saves(tmp_path, "batch", every_n_train_steps=4)])
    path = tmp_path / "batch-step=4.ckpt"
    trainer.test(trainer.lightning_module, trainer.datamodule, ckpt_path=path, verbose=False)
    assert [p.name for p in curve.paths] == ["robust_acc_val.png", "robust_acc_test_batch-step=4.png"]
    again = RobustnessCurve(FGSM(), radii=[0.1], folder=str(tmp_path / "none"))
    outcome(recipe.but(trainer={"fast_dev_run": 1}), again)
    assert not again.paths
    assert not (tmp_path / "none").exists()


def test_bad_radii():
    for radii, message in (((), "is empty|draws nothing"), ((0.1, -1.0), r"radii=-1\.0")):
        with pytest.raises(ValueError, match=message):
            RobustnessCurve(radii=radii)
    with pytest.raises(ValueError, match=r"both report 'robust_acc"):
        outcome(RECIPE, RobustnessCurve(radii=[0.1]), RobustnessCurve(radii=[0.2]))
