"""What every method owes its users: found, not listed. A new method is tested here the day it is written.

What it owes users with data of their own stands in test_contract_served.py.
"""

import functools
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from testkit.cases import NEEDED, case_params, method_params, methods
from testkit.served import build
from testkit.training import (
    CLASSES,
    EPOCHS,
    NETS,
    LeaveAfter,
    Recipe,
    TinyConv,
    different,
    fit,
    meta_of,
    snapshot,
    tiny_data,
    trainer_of,
)

import lightning_perturb
from lightning_perturb.core import Coordinates, Needs, PerturbationModule
from lightning_perturb.core.plain import as_plain
from lightning_perturb.core.taxonomy import DIRECTIONS, GRANULARITIES, INFERENCES, TARGETS

IMAGES = {"trainer": {"max_epochs": 2}, "net": "conv", "data": {"samples": 48}}


def test_there_are_methods():
    names = {cls.__name__ for cls in methods()}
    assert {"CrossEntropy", "LogPert", "MixPert"} <= names
    assert names <= set(lightning_perturb.methods.__all__), "a method that users cannot import"
    assert {cls.__name__ for cls in methods()} == {
        name
        for name, value in vars(lightning_perturb.methods).items()
        if inspect.isclass(value) and issubclass(value, PerturbationModule)
    }


@pytest.mark.parametrize("method", method_params())
def test_coordinates(method):
    stated = method.coordinates
    assert isinstance(stated, Coordinates)
    if method is plain_of(method):
        assert stated == Coordinates()
        return
    fields = {"target": TARGETS, "direction": DIRECTIONS, "inference": INFERENCES, "granularity": GRANULARITIES}
    for field, legal in fields.items():
        words = getattr(stated, field)
        assert words, f"{field} is empty"
        assert set(words) <= set(legal)
        assert len(words) == len(set(words))
    assert isinstance(method.needs, Needs)


def documented(cls: type) -> set[str]:
    """Names in the Args section of a class' docstring."""
    text = inspect.getdoc(cls) or ""
    _, _, arguments = text.partition("Args:\n")
    arguments = re.split(r"\n\w+:\n", arguments)[0]
    return set(re.findall(r"^ {4}(\*{0,2}\w+):", arguments, re.MULTILINE))


@pytest.mark.parametrize("method", [*method_params(), pytest.param(PerturbationModule, id="base")])
def test_every_argument_is_documented_and_typed(method):
    assert "__doc__" in vars(method), "the help is made from the class' own docstring"
    signature = inspect.signature(method.__init__)
    own = {name for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {
        "self"
    }
    if "__init__" not in vars(method):
        own = set()
    written = documented(method)
    assert own <= written, f"not documented: {own - written}"
    assert written - own <= {"**kwargs"}, f"documented, but no argument: {written - own}"
    for name in own:
        parameter = signature.parameters[name]
        assert parameter.annotation is not parameter.empty, f"{name} has no type"
        assert not isinstance(parameter.annotation, str), "a postponed annotation, which the command line cannot read"
        assert parameter.default is not parameter.empty or name in ("net", "num_classes"), f"{name} has no default"


@pytest.mark.parametrize("method", method_params())
def test_an_argument_with_a_typing_error_is_told(method):
    with pytest.raises(TypeError, match=r"lerning_rate"):
        build(method, {"lerning_rate": 0.1})


# training ---------------------------------------------------------------------------------------------------------


class Look(Callback):
    """What recorders are told in the first epoch, and everything that a run has at its end."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.first_epoch: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == 0:
            self.told.append(outputs | {"batch": batch["train"] if module.needs.meta else batch})

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            self.first_epoch = snapshot(trainer)

    @property
    def net(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.first_epoch.items() if name.startswith("module/net")}


@dataclass
class Learned:
    """What one training on easy data shows of a method."""

    look: Look
    metrics: dict[str, float]
    tested: dict[str, float]
    epochs: int
    steps: int
    weight: torch.Tensor
    finite: bool
    live: list[str]
    names: set[str]
    checkpoint: Path
    data: LightningDataModule
    prob: torch.Tensor


def easy(method, options, **data) -> Recipe:
    served = {"samples": 240, "noise": 0.0, "test_samples": 300, "val_size": 40, **data}
    return Recipe(method, options, data=served, trainer={"check_val_every_n_epoch": EPOCHS})


def probabilities(module, data) -> torch.Tensor:
    """Of the first test batch."""
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        return module.eval().predict_step(batch, 0)["prob"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Trains a case once, for all contracts that look at an ordinary training: ``learned(method, options)``."""
    known: dict[str, Learned] = {}

    def of(method, options, **data) -> Learned:
        key = f"{method.__name__} {options} {data}"
        if key not in known:
            look, path = Look(), tmp_path_factory.mktemp("learned") / "run.ckpt"
            trainer = fit(easy(method, options, **data), callbacks=[look])
            module, served = trainer.lightning_module, trainer.datamodule
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            trainer.save_checkpoint(path)
            (tested,) = trainer.test(module, datamodule=served, verbose=False)
            known[key] = Learned(
                look, metrics, tested, trainer.max_epochs, trainer.global_step,
                module.net.classifier.weight.detach().clone(),
                all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters()),
                module._live_arguments, set(module.state_dict()), path, served, probabilities(module, served),
            )  # fmt: skip
        return known[key]

    return of


@pytest.mark.parametrize(("method", "options"), case_params())
def test_it_learns_what_is_easy_and_reports_it(method, options, learned):
    run = learned(method, options)
    assert torch.isfinite(torch.tensor(list(run.metrics.values()))).all(), run.metrics
    assert run.steps == run.epochs * 13
    # a guess is right in one of ten; the flat losses are slow on purpose, and so is full augmentation from the start
    slow = {"MAE": 0.3, "RCE": 0.2, "IADA": 0.35, "MetaIADA": 0.25, "ArcFace": 0.2, "CategoryArcFace": 0.2}
    slow |= {"LDAM": 0.3, "LDAMDRW": 0.3, "DisturbLabel": 0.4}
    # a penalty of the size of the loss, at the large rate of this test
    slow |= {"IRM": 0.2, "IBIRM": 0.2, "VREx": 0.2, "CORAL": 0.3, "DomainMix": 0.35}
    # few samples of 16 have a weight in L2RW, which is wild at this rate: its own test shows that it learns
    slow |= {"ActivePassiveLoss": 0.3, "L2RW": 0.05, "MLC": 0.3, "JoCoR": 0.3}
    score, guess = run.tested.get("test/acc", 0.0), slow.get(method.__name__, 0.45)
    if method.multi_label:
        # a guess has the share of positives, .15, as its average precision; a mean over classes moves slowly
        score, guess = run.tested["test/mAP"], 0.35
    assert score > guess
    assert run.finite, "a gradient is not finite"


@pytest.mark.parametrize(("method", "options"), case_params())
def test_what_a_step_tells_recorders(method, options, learned):
    told = learned(method, options).look.told
    assert len(told) == 13
    for step in told:
        batch = step["batch"]
        assert step["logits"].shape == (len(batch), CLASSES)
        assert not step["logits"].requires_grad
        assert torch.equal(step["y"], batch.y)
        assert torch.equal(step["index"], batch.index)
        if "perturbation_norm" in step:
            assert step["perturbation_norm"].shape == (len(batch),)
            assert bool((step["perturbation_norm"] >= 0).all())
            assert not step["perturbation_norm"].requires_grad


def plain_of(method: type[PerturbationModule]) -> type[PerturbationModule]:
    both = lightning_perturb.methods
    return both.BinaryCrossEntropy if method.multi_label else both.CrossEntropy


@functools.cache
def plain_epoch(method: type[PerturbationModule], **data: Any) -> dict[str, torch.Tensor]:
    """The network after an epoch of the plain loss."""
    look = Look()
    fit(Recipe(method, trainer={"max_epochs": 1}, data=data), callbacks=[look])
    return look.net


@pytest.mark.parametrize(("method", "options"), case_params())
def test_warm_up_is_cross_entropy(method, options):
    look, data = Look(), {"noise": 0.4, **meta_of(method)}
    recipe = Recipe(method, {**options, "warmup_epochs": 1}, trainer={"max_epochs": 2}, data=data)
    trainer = fit(recipe, callbacks=[look])
    plain = plain_epoch(plain_of(method), **data)
    assert look.net.keys() == plain.keys()
    assert all(torch.equal(look.net[name], plain[name]) for name in plain)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize(("method", "options"), case_params())
def test_it_is_not_cross_entropy(method, options, learned):
    # or else the test above says nothing
    plain = plain_of(method)
    # what begins late, after training, or at wrong labels, is not seen here
    late = ("D2L", "MbLS", "PostHocLogitAdjustment", "TauNormalization", "ClassBalancedFineTuning")
    late += ("ClassifierRetraining", "LearnableWeightScaling")
    if method is plain or method.needs.truth or method.__name__ in late:
        return
    assert not torch.equal(learned(method, options).weight, learned(plain, {}, **meta_of(method)).weight)


@pytest.mark.parametrize(("method", "options"), case_params())
def test_a_checkpoint_opens_without_arguments(method, options, learned):
    run = learned(method, options)
    given = {**NEEDED.get(method.__name__, {}), **options}
    live = {name: given[name] for name in run.live if name in given}
    again = lightning_perturb.load(run.checkpoint, net=NETS["mlp"](), **live)
    assert type(again) is method
    for name in given.keys() - live.keys() - set(method.training_only):
        assert again.hparams[name] == as_plain(given[name])
    assert torch.equal(probabilities(again, run.data), run.prob)
    assert set(again.state_dict()) == run.names
    kept = type(again).load_from_checkpoint(run.checkpoint, net=NETS["mlp"](), **live)
    assert torch.equal(kept.net.classifier.weight, again.net.classifier.weight)


@pytest.mark.parametrize("method", method_params())
def test_the_same_seed_gives_the_same_run(method, learned):
    look = Look()
    fit(easy(method, {}), callbacks=[look, LeaveAfter(1)])
    one, two = learned(method, {}).look.first_epoch, look.first_epoch
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, equal_nan=True)


def test_another_seed_gives_another_run():
    recipe = Recipe(lightning_perturb.methods.CrossEntropy, net="dropout", trainer={"max_epochs": 1})
    one, two, other = (snapshot(fit(recipe, seed=seed)) for seed in (1, 1, 2))
    assert different(one, two) == []
    assert "module/net.classifier.weight" in different(one, other)


@pytest.mark.parametrize("method", method_params())
def test_training_again_starts_anew_and_begins_every_epoch_once(method):
    module = build(method)
    data = tiny_data(samples=64, val_size=16, **meta_of(module))
    trainer_of(max_epochs=1, limit_val_batches=0).fit(module, data)
    assert module._started_epoch == 0
    begun = []
    start = module.start_epoch
    module.start_epoch = lambda: (begun.append(module.current_epoch), start())[1]
    halves = {"max_epochs": 2, "val_check_interval": 2}
    together = {**halves, "accumulate_grad_batches": 2}
    manual = not module.automatic_optimization
    if manual:
        with pytest.raises(ValueError, match=rf"accumulate_grad_batches=2.*{method.__name__}"):
            trainer_of(**together).fit(module, data)
    trainer_of(**(halves if manual else together)).fit(module, data)
    assert begun == [0, 1], "an epoch of the second run did not begin, or began with a step inside it"


@pytest.mark.parametrize("method", method_params())
def test_partly_frozen_networks_stay_frozen(method):
    net = TinyConv(norm=True)
    net.body[1].eval()
    net.body[0].weight.requires_grad_(False)
    frozen = {k: v.clone() for k, v in net.body[:2].state_dict().items()}
    options = {"eps2": 0.03, "rank_mode": "train"} if method.__name__ == "MixPert" else {}
    module = build(method, options, net=net)
    trainer_of(max_epochs=1).fit(module, tiny_data(samples=48, **meta_of(module)))
    after = net.body[:2].state_dict()
    assert not net.body[1].training
    assert net.training
    for name in ("0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(after[name], frozen[name]), name


@pytest.mark.parametrize(("method", "options"), case_params())
def test_bf16_and_channels_last(method, options):
    recipe = Recipe(method, {**options, "channels_last": True}, **IMAGES).but(trainer={"precision": "bf16-mixed"})
    seen = {}

    class Formats(Callback):
        def on_train_start(self, trainer, module):
            def look(_, inputs, output):
                seen["format"] = inputs[0].is_contiguous(memory_format=torch.channels_last)
                seen["dtype"] = output.dtype

            module.net.body[3].register_forward_hook(look)

    trainer = fit(recipe, callbacks=[Formats()])
    module = trainer.lightning_module
    assert seen == {"format": True, "dtype": torch.bfloat16}
    assert module.net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.dtype == torch.float32 for p in module.parameters())
    open_ended = ("last_loss", "quantile", "group_log_weight")
    assert all(bool(b.isfinite().all()) for n, b in module.named_buffers() if n not in open_ended)
    assert float(trainer.callback_metrics["train/loss"]) > 0
    plain = fit(Recipe(method, options, **IMAGES))
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        float(plain.callback_metrics["train/loss"]), rel=0.15
    )


def test_rates_by_step_and_by_epoch():
    for interval, expected in (("epoch", 0.2 * 0.7**2), ("step", 0.2 * 0.7**12)):
        trainer = fit(
            Recipe(lightning_perturb.methods.CrossEntropy, {"lr_interval": interval}, trainer={"max_epochs": 2})
        )
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_the_scheduler_that_waits_for_a_plateau_watches_validation():
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, factor=0.5)

    recipe = Recipe(lightning_perturb.methods.CrossEntropy, {"lr_scheduler": plateau}, data={"val_size": 16})
    assert fit(recipe).optimizers[0].param_groups[0]["lr"] < 0.2


def test_the_default_optimizer_is_the_papers():
    module = lightning_perturb.methods.CrossEntropy(NETS["mlp"](), CLASSES)
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert {id(p) for p in group["params"]} == {id(p) for p in module.net.parameters()}


@pytest.mark.gpu
@pytest.mark.parametrize(("method", "options"), case_params())
def test_on_a_gpu(method, options):
    recipe = Recipe(method, {**options, "channels_last": True}, **IMAGES)
    trainer = fit(recipe.but(trainer={"accelerator": "gpu", "precision": "bf16-mixed"}))
    module = trainer.lightning_module
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert trainer.callback_metrics["train/loss"].device.type == "cuda"
    cpu = fit(recipe)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        float(cpu.callback_metrics["train/loss"]), rel=0.15
    )
    assert module.state_dict().keys() == cpu.lightning_module.state_dict().keys()


@pytest.mark.gpu
@pytest.mark.parametrize("method", method_params())
def test_state_lives_on_the_gpu(method):
    seen = set()

    class Devices(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.update(b.device.type for b in module.buffers())
            seen.update(t.device.type for t in module._rank_tensors.values())

    fit(Recipe(method, trainer={"max_epochs": 1, "accelerator": "gpu"}), callbacks=[Devices()])
    assert seen == {"cuda"}
