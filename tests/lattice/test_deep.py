"""Cells that perturb the deep feature before the classifier."""

import pytest
import torch
from lightning.pytorch import seed_everything
from testkit.training import (
    CLASSES,
    NETS,
    Recipe,
    Saves,
    different,
    fit,
    meta_of,
    resume,
    sgd,
    snapshot,
    tiny_data,
    trainer_of,
)
from torch import nn
from torch.nn import functional as F

from lightning_perturb.core import Batch
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.lattice import (
    Adversarial,
    Covariance,
    HardestSamples,
    Hyperparameter,
    Meta,
    Noise,
    Prior,
    Regularization,
    Shift,
)
from lightning_perturb.methods import MetaPerturb, Perturb
from lightning_perturb.nets import record_features

CELLS = [
    Adversarial("feature", "sample", at="deep", eps=0.2, split=HardestSamples(0.3)),
    Adversarial("feature", "category", "mixed", at="deep", eps=0.2, norm="l2", steps=2),
    Regularization("feature", "sample", at="deep", lam=0.05),
    Regularization("feature", "corpus", "negative", at="deep", lam=5.0, steps=2),
    Prior("feature", "sample", "positive", at="deep", pattern=Noise()),
    Hyperparameter("feature", "category", "mixed", at="deep", value=0.05, pattern=Shift(0.5)),
    # it reads them, and has state
    Prior("logit", "category", "negative", strength=1.0, power=0, pattern=Covariance(ramp=False)),
]


def made(*cells, method=Perturb, net="mlp", **options):
    seed_everything(0, verbose=False)
    return method(NETS[net](), CLASSES, optimizer=sgd, perturbations=list(cells), **options)


def batch(size=12):
    generator = torch.Generator().manual_seed(3)
    return Batch(torch.rand(size, 1, 8, 8, generator=generator), torch.arange(size) % 4, torch.arange(size))


def parts(module, one):
    """Features without a perturbation, and the classifier."""
    with record_features(module.net) as recorded:
        module.net(one.x)
    return recorded.features.detach(), module.net.classifier


@pytest.mark.parametrize(("direction", "way"), [("negative", 1), ("positive", -1)])
def test_the_attack_is_the_one_on_the_classifier_alone(direction, way):
    module, one = (
        made(Adversarial("feature", "sample", direction, at="deep", eps=0.2, step_size=0.05, steps=3)),
        batch(),
    )
    outputs = module.outputs(module.net, one)
    h, layer = parts(module, one)
    delta = torch.zeros_like(h)
    for _ in range(3):
        moved = (h + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(layer(moved), one.y, reduction="sum"), moved)
        delta = (delta + way * 0.05 * gradient.sign()).clamp(-0.2, 0.2)
    torch.testing.assert_close(outputs["logits"], layer(h + delta))
    plain, after = (F.cross_entropy(u, one.y, reduction="none") for u in (layer(h), outputs["logits"]))
    assert bool((way * (after - plain) > 0).all())
    assert torch.equal(module.eval()(one.x), layer(h)), "evaluation reads the plain network"


def test_those_who_share_move_by_one_vector():
    one = batch()
    for granularity in ("category", "corpus"):
        module = made(Adversarial("feature", granularity, at="deep", eps=0.2))
        h, _ = parts(module, one)
        with module._reader.recording(module.net) as recorded:
            module.outputs(module.net, one)
        delta = recorded.features.detach() - h
        for c in range(4):
            torch.testing.assert_close(delta[one.y == c], delta[one.y == c][:1].expand(3, -1), atol=1e-6, rtol=0)
        assert (granularity == "corpus") == torch.allclose(delta[0], delta[1], atol=1e-6)
        assert float(delta.abs().max()) == pytest.approx(0.2, abs=1e-6)
        assert "cell_0_shared" not in module.state_dict()


def test_hard_samples_are_those_of_the_unperturbed_network():
    # at the input, deep, and then in the logits: all see the losses before the first of them
    first = Adversarial("feature", "sample", at="input", eps=0.3, step_size=0.1)
    deep = Adversarial("feature", "sample", at="deep", eps=2.0, step_size=1.0)
    last = Adversarial("logit", "sample", "positive", norm="none", steps=1, step_size=3.0, split=HardestSamples(0.25))
    one = batch()
    plain = F.cross_entropy(made().net(one.x), one.y, reduction="none").detach()
    for cells in ([first, last], [deep, last], [first, deep, last]):
        module, here = made(*cells), one.copy()
        here = module.perturb_input(here)
        outputs = module.outputs(module.net, here)
        logits = module.perturb_logits(outputs["logits"], outputs, here)
        torch.testing.assert_close(here.extra["plain_losses"], plain)
        hard = (logits - outputs["logits"]).abs().sum(1) > 0
        assert torch.equal(hard, plain >= plain.sort().values[-3])


def test_it_trains_and_goes_on_where_it_was_cut(tmp_path):
    recipe = Recipe(Perturb, {"perturbations": CELLS}, net="dropout", trainer={"max_epochs": 2})
    whole = fit(recipe, callbacks=[Saves(tmp_path, "batch", every_n_train_steps=4)])
    assert torch.isfinite(whole.callback_metrics["train/loss"])
    assert different(snapshot(whole), snapshot(resume(recipe, tmp_path / "batch-step=4.ckpt"))) == []


def state(recipe):
    return {k: v for k, v in snapshot(fit(recipe)).items() if not k.startswith("random")}


def test_two_ranks_are_one_process(ranks):
    recipe = Recipe(Perturb, {"perturbations": CELLS}, trainer={"precision": "64-true", "max_epochs": 1})
    expected = state(recipe)
    two = recipe.but(data={"batch_size": 8}, trainer={"strategy": "ddp", "devices": 2})
    first, second = ranks(state, two)
    assert different(first, second) == []
    assert different(expected, first, tolerance=1e-6) == []


@pytest.mark.parametrize(
    "cell",
    [
        Meta("feature", "corpus", "mixed", at="deep", start=0.1, pattern=Noise()),
        Meta("feature", "category", "negative", at="deep", start=0.1),
        Meta("feature", "sample", "mixed", at="deep"),
    ],
    ids=str,
)
def test_amounts_in_deep_features_are_learned(cell):
    # beside a cell that is not learned
    module = made(Adversarial("feature", "corpus", at="deep", eps=0.05), cell, method=MetaPerturb)
    before = [p.detach().clone() for p in module.theta()]
    with pytest.warns(UserWarning, match="engine='auto' goes on with engine='higher'"):
        trainer_of(max_epochs=1).fit(module, tiny_data(**meta_of(module)))
    assert all(not torch.equal(old, new) for old, new in zip(before, module.theta(), strict=True))


def test_a_learned_loss_beside_a_deep_attack_needs_no_second_order():
    module = made(
        Adversarial("feature", "sample", at="deep", eps=0.1), Meta("loss", "sample", "positive"), method=MetaPerturb
    )
    trainer_of(max_epochs=1).fit(module, tiny_data(**meta_of(module)))
    assert {each.engine for each in module._bilevels.values()} <= {"auto", "forward"}


def test_half_precision():
    recipe = Recipe(Perturb, {"perturbations": CELLS}, trainer={"max_epochs": 1})
    half, full = (fit(recipe.but(trainer={"precision": p})) for p in ("bf16-mixed", "32-true"))
    assert float(half.callback_metrics["train/loss"]) == pytest.approx(
        float(full.callback_metrics["train/loss"]), rel=0.1
    )


class Followed(nn.Module):
    """Its last layer does not give the logits."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x):
        return 2 * self.fc(x.flatten(1))


def test_what_does_not_fit_is_named():
    one = batch()
    deep = Adversarial("feature", at="deep")
    with pytest.raises(ValueError, match=r"at='deep' says which feature, but Adversarial\(target=logit"):
        Adversarial("logit", at="deep")
    with pytest.raises(ValueError, match=r"at='depe' is unknown"):
        Adversarial("feature", at="depe")
    with pytest.raises(ValueError, match=r"classifier='fc' is read by no cell"):
        made(Adversarial("logit"), classifier="fc")
    with pytest.raises(ValueError, match=r"at=deep\)\(classifier='head'\) reads .*Choose one of"):
        made(deep, classifier="head")
    with pytest.raises(ValueError, match=r"has no nn.Linear"):
        Perturb(nn.Conv2d(1, CLASSES, 8), CLASSES, perturbations=[deep])
    module = Perturb(Followed(), CLASSES, perturbations=[deep])
    with pytest.raises(ValueError, match="let nothing follow it"):
        module.outputs(module.net, one)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, CLASSES))
    module = Perturb(net, CLASSES, perturbations=[deep], classifier="1")
    with pytest.raises(ValueError, match=rf"gives 4 outputs, where \(B, 64\) and num_classes={CLASSES} are needed"):
        module.outputs(module.net, one)
    with pytest.raises(ValueError, match=r"space is not used by Adversarial\(.*at=deep\), which acts on no input"):
        Adversarial("feature", at="deep", space=InputSpace())
