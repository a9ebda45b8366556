"""What every method owes users with data of their own: any form of batches, and faults that are named."""

import pytest
import torch
from testkit.cases import case_params, method_params
from testkit.served import Served, build, first_step, form_for, pixels, train
from testkit.training import CLASSES, TinyConv, meta_of, multi_hot, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_perturb
from lightning_perturb.core import Batch, MetaPerturbationModule
from lightning_perturb.core.features import FeatureModule


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
    if needs.domains:
        with pytest.raises(ValueError, match=rf"{method.__name__} needs the domain of each sample.*'domain'"):
            train(build(method, options), loader)
        return
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
    module = build(method, options)
    needs, loader = module.needs, DataLoader(Served(form, method), 16)
    if needs.truth and form == "triple":
        with pytest.raises(ValueError, match=rf"{method.__name__} must know which labels are wrong"):
            first_step(module, loader)
        return
    if needs.domains and form == "triple":
        with pytest.raises(ValueError, match=rf"{method.__name__} needs the domain of each sample"):
            first_step(module, loader)
        return
    # a second epoch, which may read what the first left, does not depend on the form
    epochs = 2 if form == form_for(method) else 1
    assert train(module, loader, max_epochs=epochs).global_step == 3 * epochs
    if needs.index:
        name = next(iter(module._sample_state))
        assert len(getattr(module, name)) >= 48
    if epochs == 2:
        (found,) = trainer_of().validate(module, loader, verbose=False)
        assert 0 <= found["val/mAP" if method.multi_label else "val/acc"] <= 1


@pytest.mark.parametrize("method", method_params())
def test_labels_outside_the_classes(method):
    module, good = build(method), pixels(method=method)[1]
    for wrong in (-1, 255, 10):
        y = good.clone()
        y[13] = wrong
        fault = rf"label is {wrong}; a multi-label" if method.multi_label else rf"label is {wrong}, outside 0\.\.9"
        with pytest.raises(ValueError, match=fault):
            first_step(module, DataLoader(Served(form_for(method), method, y), 16))
    # in the middle of a training too
    y = good.clone()
    y[17] = wrong
    with pytest.raises(ValueError, match=fault):
        train(module, DataLoader(Served(form_for(method), method, y), 16))


@pytest.mark.parametrize("method", method_params())
def test_labels_of_the_other_kind(method):
    other = multi_hot(pixels()[1]) if not method.multi_label else pixels()[1]
    fault = rf"{method.__name__}.*{'CrossEntropy' if method.multi_label else 'BinaryCrossEntropy'}"
    data = tiny_data(**{**meta_of(method), "meta_size": 0, "multi_label": not method.multi_label})
    module = build(method)
    with pytest.raises(ValueError, match=fault):
        trainer_of(max_epochs=1).fit(module, data)
    # bool, as whole numbers, and as floats
    for y in (other,) if method.multi_label else (other, other.long(), other.bool()):
        with pytest.raises(ValueError, match=fault):
            first_step(build(method), DataLoader(Served(form_for(method), method, y), 16))


@pytest.mark.parametrize("method", method_params())
def test_a_network_of_another_width(method):
    module = build(method, net=TinyConv(7))
    with pytest.raises(ValueError, match=r"net=TinyConv gives .*7\) where num_classes=10"):
        train(module, DataLoader(Served(form_for(method), method), 16))
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
            "domain": i % 2,
        }
        for i in range(32)
    ]
    if issubclass(method, MetaPerturbationModule):
        # the bag of embeddings has neither a forward rule nor a second derivative
        options = {**options, "engine": "central"}
    net, mixes_features = Tokens(), options.get("mix_at") == "features"
    if issubclass(method, FeatureModule) or mixes_features:
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
    if module.eps if attacks else "feature" in module.coordinates.target and not mixes_features:
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
