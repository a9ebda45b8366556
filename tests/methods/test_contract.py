"""What every method owes its users: found, not listed. A new method is tested here the day it is written."""

import inspect
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from testkit.cases import NEEDED, case_params, method_params, methods
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    TinyConv,
    digits,
    fit,
    meta_of,
    multi_hot,
    sgd,
    snapshot,
    tiny_data,
    trainer_of,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_perturb
from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule
from lightning_perturb.core.counts import OptionalCountsModule
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.core.plain import as_plain
from lightning_perturb.core.taxonomy import DIRECTIONS, GRANULARITIES, INFERENCES, TARGETS

IMAGES = {"trainer": {"max_epochs": 2}, "net": "conv"}


def build(method, options: dict[str, Any] | None = None, net: nn.Module | None = None, classes: int = CLASSES):
    seed_everything(0, verbose=False)
    # a user's own loader does not tell them
    if issubclass(method, OptionalCountsModule):
        options = {"class_counts": [10] * classes, **(options or {})}
    if issubclass(method, lightning_perturb.methods.NTR):
        options = {"train_samples": 48, **(options or {})}
    options = {**NEEDED.get(method.__name__, {}), **(options or {})}
    # a user's own loader gives pixels that are not normalised
    module = method(net or NETS["mlp"](), classes, optimizer=sgd, **options)
    # and its batches are what they are, which test_resampling.py finds named
    module.needs = replace(module.needs, balanced_from=None)
    return module


def pixels(count: int = 48, method: type[PerturbationModule] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = digits()
    several = method is not None and method.multi_label
    return x[:count].float() / 255, multi_hot(y[:count]) if several else y[:count]


class Served(Dataset):
    """Samples in the form that the method needs; mappings with views where asked."""

    def __init__(self, form: str, method: type[PerturbationModule], y: torch.Tensor | None = None) -> None:
        self.x, self.y = pixels(method=method)
        self.y = self.y if y is None else y
        self.form, self.views = form, method.needs.views

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        x = self.x[i] if self.views == 1 else (self.x[i], self.x[i].flip(-1))
        if self.form == "pair":
            return x, self.y[i]
        if self.form == "triple":
            return x, self.y[i], i
        return {
            "image": x,
            "label": self.y[i],
            "index": i,
            "weight": torch.tensor(1.0),
            "noisy": torch.tensor(i % 3 == 0),
        }


def form_for(method: type[PerturbationModule]) -> str:
    """The shortest form of samples with an index that has all that is needed."""
    return "mapping" if method.needs.truth else "triple"


def with_meta(module, loader):
    """What a method that learns from clean samples is served."""
    return CombinedLoader({"train": loader, "meta": loader}, "min_size") if module.needs.meta else loader


def train(module, loader, **trainer):
    loader = with_meta(module, loader)
    runner = trainer_of(**{"max_epochs": 2, **trainer})
    runner.fit(module, loader)
    return runner


# what a class says of itself --------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("method", "options"), case_params())
def test_it_learns_what_is_easy_and_reports_it(method, options):
    trainer = fit(Recipe(method, options, data={"samples": 240, "noise": 0.0, "test_samples": 300, "val_size": 40}))
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert torch.isfinite(torch.tensor(list(metrics.values()))).all(), metrics
    assert trainer.global_step == trainer.max_epochs * 13
    (test,) = trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    # a guess is right in one of ten; the flat losses are slow on purpose, and so is full augmentation from the start
    slow = {"MAE": 0.3, "RCE": 0.2, "IADA": 0.35, "MetaIADA": 0.25, "ArcFace": 0.2, "CategoryArcFace": 0.2}
    slow |= {"LDAM": 0.3, "LDAMDRW": 0.3, "DisturbLabel": 0.4}
    score, guess = test.get("test/acc", 0.0), slow.get(method.__name__, 0.45)
    if method.multi_label:
        # a guess has the share of positives, .15, as its average precision; a mean over classes moves slowly
        score, guess = test["test/mAP"], 0.35
    assert score > guess
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in trainer.lightning_module.parameters())


@pytest.mark.parametrize(("method", "options"), case_params())
def test_what_a_step_tells_recorders(method, options):
    told: list[dict[str, Any]] = []

    class Recorder(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            told.append(outputs | {"batch": batch})

    module = fit(Recipe(method, options, trainer={"max_epochs": 1}), callbacks=[Recorder()]).lightning_module
    assert len(told) == 6
    for step in told:
        assert step["logits"].shape == (16, CLASSES)
        assert not step["logits"].requires_grad
        batch = step["batch"]["train"] if module.needs.meta else step["batch"]
        assert torch.equal(step["y"], batch.y)
        assert torch.equal(step["index"], batch.index)
        if "perturbation_norm" in step:
            assert step["perturbation_norm"].shape == (16,)
            assert bool((step["perturbation_norm"] >= 0).all())
            assert not step["perturbation_norm"].requires_grad


@pytest.mark.parametrize(("method", "options"), case_params())
def test_a_plain_loader_works_or_names_what_is_missing(method, options):
    needs = build(method, options).needs
    x, y = pixels(method=method)
    loader = DataLoader(TensorDataset(x, y), 16)
    if needs.meta:
        with pytest.raises(ValueError, match=rf"{method.__name__} learns from clean meta samples.*meta_size"):
            trainer_of(max_epochs=1).fit(build(method, options), loader)
    if needs.views > 1:
        with pytest.raises(
            ValueError, match=rf"{method.__name__} needs {needs.views} augmented views .* the batch has 1"
        ):
            train(build(method, options), loader)
        loader = DataLoader(Served("pair", method), 16)
    if needs.index:
        with pytest.raises(ValueError, match=rf"{method.__name__} .*needs each sample's index.*Wrap\(datamodule"):
            train(build(method, options), loader)
        return
    runner = train(build(method, options), loader)
    assert runner.global_step == 6
    assert float(runner.callback_metrics["train/loss"]) > 0


@pytest.mark.parametrize("form", ["triple", "mapping"])
@pytest.mark.parametrize(("method", "options"), case_params())
def test_a_loader_of_ones_own_with_index(method, options, form):
    needs = build(method, options).needs
    module = build(method, options)
    if needs.truth and form == "triple":
        with pytest.raises(ValueError, match=rf"{method.__name__} must know which labels are wrong"):
            train(module, DataLoader(Served(form, method), 16))
        return
    runner = train(module, DataLoader(Served(form, method), 16))
    assert runner.global_step == 6
    if needs.index:
        name = next(iter(module._sample_state))
        assert len(getattr(module, name)) >= 48
    (found,) = trainer_of().validate(module, DataLoader(Served(form, method), 16), verbose=False)
    assert 0 <= found["val/mAP" if method.multi_label else "val/acc"] <= 1


@pytest.mark.parametrize("wrong", [10, -1, 255])
@pytest.mark.parametrize("method", method_params())
def test_labels_outside_the_classes(method, wrong):
    module = build(method)
    y = pixels(method=method)[1].clone()
    y[17] = wrong
    fault = rf"label is {wrong}; a multi-label" if method.multi_label else rf"label is {wrong}, outside 0\.\.9"
    with pytest.raises(ValueError, match=fault):
        train(module, DataLoader(Served(form_for(method), method, y), 16))


@pytest.mark.parametrize("method", method_params())
def test_labels_of_the_other_kind(method):
    other = multi_hot(pixels()[1]) if not method.multi_label else pixels()[1]
    remedy = r"CrossEntropy" if method.multi_label else r"BinaryCrossEntropy"
    data = tiny_data(**{**meta_of(method), "meta_size": 0, "multi_label": not method.multi_label})
    with pytest.raises(ValueError, match=rf"{method.__name__} .*{remedy}"):
        trainer_of(max_epochs=1).fit(build(method), data)
    # bool, as whole numbers, and as floats
    for y in (other,) if method.multi_label else (other, other.long(), other.bool()):
        with pytest.raises(ValueError, match=rf"{method.__name__}.*{remedy}"):
            train(build(method), DataLoader(Served("triple", method, y), 16))


@pytest.mark.parametrize("method", method_params())
def test_a_network_of_another_width(method):
    module = build(method, net=TinyConv(7))
    with pytest.raises(ValueError, match=r"net=TinyConv gives .*7\) where num_classes=10"):
        train(module, DataLoader(Served("triple", method), 16))
    module = build(method, net=TinyConv(7), classes=7)
    with pytest.raises(ValueError, match=r"num_classes=7 of .* disagrees with the data, which has 10"):
        trainer_of(max_epochs=1).fit(module, tiny_data(**meta_of(module)))
    with pytest.raises(ValueError, match=r"num_classes=1 leaves nothing"):
        build(method, net=TinyConv(1), classes=1)


class Breaks(TinyConv):
    """Gives NaN from the third batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.calls > 2 else 1.0)


@pytest.mark.parametrize(("method", "options"), case_params())
def test_a_loss_that_is_not_finite_names_method_and_batch(method, options):
    module = build(method, options, net=Breaks())
    with pytest.raises(
        FloatingPointError, match=rf"{method.__name__}: the training loss is nan in epoch 0, batch [012]"
    ):
        train(module, DataLoader(Served(form_for(method), method), 16))
    assert all(bool(p.isfinite().all()) for p in module.parameters()), "the weights are touched"


@pytest.mark.parametrize(("method", "options"), case_params())
def test_bf16_and_channels_last(method, options):
    recipe = Recipe(method, {**options, "channels_last": True}, **IMAGES).but(trainer={"precision": "bf16-mixed"})
    seen = {}

    class Look(Callback):
        def on_train_start(self, trainer, module):
            def look(_, inputs, output):
                seen["format"] = inputs[0].is_contiguous(memory_format=torch.channels_last)
                seen["dtype"] = output.dtype

            module.net.body[3].register_forward_hook(look)

    trainer = fit(recipe, callbacks=[Look()])
    module = trainer.lightning_module
    assert seen == {"format": True, "dtype": torch.bfloat16}
    assert module.net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert all(bool(b.isfinite().all()) for n, b in module.named_buffers() if n not in ("last_loss", "quantile"))
    assert float(trainer.callback_metrics["train/loss"]) > 0
    plain = fit(Recipe(method, options, **IMAGES))
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        float(plain.callback_metrics["train/loss"]), rel=0.15
    )


@pytest.mark.parametrize(("method", "options"), case_params())
def test_warm_up_is_cross_entropy(method, options):
    data = {"noise": 0.4, **meta_of(build(method, options))}
    recipe = Recipe(method, {**options, "warmup_epochs": 1}, trainer={"max_epochs": 1}, data=data)
    plain = Recipe(plain_of(method), trainer={"max_epochs": 1}, data=data)
    weights = [{k: v for k, v in snapshot(fit(r)).items() if "module/net" in k} for r in (recipe, plain)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert torch.isfinite(fit(recipe.but(trainer={"max_epochs": 2})).callback_metrics["train/loss"])


def plain_of(method: type[PerturbationModule]) -> type[PerturbationModule]:
    both = lightning_perturb.methods
    return both.BinaryCrossEntropy if method.multi_label else both.CrossEntropy


def test_most_methods_are_not_cross_entropy():
    # or else the test above says nothing
    def net_weight(method, options):
        return fit(Recipe(method, options, trainer={"max_epochs": 2})).lightning_module.net.classifier.weight

    plain = {cls: net_weight(cls, {}) for cls in {plain_of(method) for method in methods()}}
    for case in case_params():
        method, options = case.values
        # what begins late, or after training, is not seen in two epochs
        if method in plain or method.__name__ in ("MbLS", "PostHocLogitAdjustment", "ClassBalancedFineTuning"):
            continue
        assert not torch.equal(net_weight(method, options), plain[plain_of(method)]), case.id


@pytest.mark.parametrize(("method", "options"), case_params())
def test_a_checkpoint_opens_without_arguments(method, options, tmp_path):
    data = tiny_data(**meta_of(build(method, options)))
    trainer = fit(Recipe(method, options, trainer={"max_epochs": 1}), data=data)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    expected = torch.cat([b["prob"] for b in trainer_of().predict(trainer.lightning_module, datamodule=data)])
    given = {**NEEDED.get(method.__name__, {}), **options}
    live = {name: given[name] for name in trainer.lightning_module._live_arguments if name in given}
    again = lightning_perturb.load(tmp_path / "run.ckpt", net=NETS["mlp"](), **live)
    assert type(again) is method
    for name in given.keys() - live.keys() - set(method.training_only):
        assert again.hparams[name] == as_plain(given[name])
    found = torch.cat([b["prob"] for b in trainer_of().predict(again, datamodule=data)])
    assert torch.equal(found, expected)
    assert not (snapshot_of(again).keys() ^ snapshot_of(trainer.lightning_module).keys())
    kept = type(again).load_from_checkpoint(tmp_path / "run.ckpt", net=NETS["mlp"](), **live)
    assert torch.equal(kept.net.classifier.weight, again.net.classifier.weight)


def snapshot_of(module) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


@pytest.mark.parametrize("method", method_params())
def test_the_same_seed_gives_the_same_run(method):
    recipe = Recipe(method, net="dropout", trainer={"max_epochs": 1})
    one, two, other = (snapshot(fit(recipe, seed=seed)) for seed in (1, 1, 2))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(one["module/net.classifier.weight"], other["module/net.classifier.weight"])


@pytest.mark.parametrize("method", method_params())
def test_training_again_starts_anew(method):
    seed_everything(0, verbose=False)
    module = build(method)
    first = tiny_data(**meta_of(module))
    trainer_of(max_epochs=1).fit(module, first)
    assert module._started_epoch == 0
    begun = []
    start = module.start_epoch
    module.start_epoch = lambda: (begun.append(module.current_epoch), start())[1]
    trainer_of(max_epochs=2).fit(module, first)
    assert begun == [0, 1], "an epoch of the second run did not begin"


@pytest.mark.parametrize("method", method_params())
def test_steps_in_one_epoch_begin_it_once(method):
    module = build(method)
    begun = []
    start = module.start_epoch
    module.start_epoch = lambda: (begun.append(module.current_epoch), start())[1]
    runner = trainer_of(max_epochs=2, accumulate_grad_batches=2, val_check_interval=0.5)
    if module.needs.meta:
        with pytest.raises(ValueError, match=rf"accumulate_grad_batches=2.*{method.__name__}"):
            runner.fit(module, tiny_data(val_size=16, **meta_of(module)))
        return
    runner.fit(module, tiny_data(val_size=16, **meta_of(module)))
    assert begun == [0, 1]


@pytest.mark.parametrize("method", method_params())
def test_partly_frozen_networks_stay_frozen(method):
    net = TinyConv(norm=True)
    net.body[1].eval()
    net.body[0].weight.requires_grad_(False)
    frozen = {k: v.clone() for k, v in net.body[:2].state_dict().items()}
    options = {"eps2": 0.03, "rank_mode": "train"} if method.__name__ == "MixPert" else {}
    module = build(method, options, net=net)
    trainer_of(max_epochs=1).fit(module, tiny_data(**meta_of(module)))
    after = net.body[:2].state_dict()
    assert not net.body[1].training
    assert net.training
    for name in ("0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(after[name], frozen[name]), name


def test_bare_inputs_can_be_predicted():
    module = build(lightning_perturb.methods.CrossEntropy)
    x, y = pixels(20)
    runner = trainer_of()
    expected = module.eval()(x).softmax(1)
    for loader in (
        DataLoader(x, batch_size=8),
        DataLoader(TensorDataset(x), batch_size=8),
        DataLoader(TensorDataset(x, y), batch_size=8),
        DataLoader([{"image": x[i]} for i in range(20)], batch_size=8),
        DataLoader([{"x": x[i], "y": y[i]} for i in range(20)], batch_size=8),
    ):
        found = runner.predict(module, loader)
        torch.testing.assert_close(torch.cat([b["prob"] for b in found]), expected)
        assert torch.equal(torch.cat([b["pred"] for b in found]), expected.argmax(1))


class Tokens(nn.Module):
    """A network of a mapping, as those of text are."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(20, CLASSES, mode="mean")

    def forward(self, input_ids, attention_mask):
        return self.embed(input_ids), attention_mask


class ClassifiedTokens(Tokens):
    """One that ends with a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(CLASSES, CLASSES)

    def forward(self, input_ids, attention_mask):
        return self.head(self.embed(input_ids)), attention_mask


@pytest.mark.parametrize(("method", "options"), case_params())
def test_tokenised_text_trains_or_is_refused_by_name(method, options):
    if build(method, options).needs.views > 1:
        pytest.skip("views of text come with a later source")
    torch.manual_seed(0)
    samples = [
        {
            "input_ids": torch.randint(20, (6,)),
            "attention_mask": torch.ones(6),
            "labels": multi_hot(torch.tensor([i % 10]))[0] if method.multi_label else torch.tensor(i % 10),
            "index": i,
        }
        for i in range(32)
    ]
    if build(method, options).needs.meta:
        # the bag of embeddings has neither a forward rule nor a second derivative
        options = {**options, "engine": "central"}
    net = Tokens()
    if issubclass(method, FeatureModule):
        with pytest.raises(ValueError, match=rf"{method.__name__}\(classifier=None\).*Tokens has no nn.Linear"):
            build(method, options, net=net)
        net = ClassifiedTokens()
    if options.get("tuned") == "classifier":
        with pytest.raises(ValueError, match=r"Tokens has no nn.Linear"):
            build(method, options, net=net)
        net = ClassifiedTokens()
    module = build(method, options, net=net)
    loader = DataLoader(samples, 8)
    attacks = isinstance(module, lightning_perturb.methods.PGDTraining)
    if module.eps if attacks else "feature" in module.coordinates.target:
        with pytest.raises(ValueError, match=rf"{method.__name__} adds a perturbation to the input.*a mapping"):
            train(module, loader, max_epochs=1)
        return
    if module.needs.truth:
        with pytest.raises(ValueError, match="must know which labels are wrong"):
            train(module, loader, max_epochs=1)
        return
    assert train(module, loader, max_epochs=1).global_step == 4
    assert trainer_of().validate(module, loader, verbose=False)[0]["val/loss"] > 0


def test_a_batch_object_that_comes_again_is_not_changed():
    x, y = pixels(16)
    batch = Batch(x, y, torch.arange(16))
    module = build(lightning_perturb.methods.MixPert, {"share": 0.25})
    found = []
    for _ in range(2):
        outputs = module.outputs(module.net, batch)
        found.append(module.training_step(batch, 0)["perturbation_norm"].nonzero().flatten().tolist())
        assert batch.extra == {}
        with torch.no_grad():
            module.net.classifier.bias.copy_(torch.randn(CLASSES) * 5)
    assert outputs["logits"].shape == (16, CLASSES)
    assert found[0] != found[1], "the hard samples of the first time were used again"


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

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.update(b.device.type for b in module.buffers())
            seen.update(t.device.type for t in module._rank_tensors.values())

    fit(Recipe(method, trainer={"max_epochs": 1, "accelerator": "gpu"}), callbacks=[Look()])
    assert seen == {"cuda"}
