"""Classifiers that are trained anew, scaled or normalised after the features were learned."""

import numpy as np
import pytest
import torch
from testkit.training import CLASSES, NETS, Recipe, TinyConv, different, digits, fit, sgd, snapshot
from torch.nn import functional as F

from lightning_perturb.core import Batch
from lightning_perturb.data import Exponential
from lightning_perturb.methods import ClassifierRetraining, CrossEntropy, LearnableWeightScaling, TauNormalization

TAIL = {"samples": 600, "noise": 0.0, "imbalance": Exponential(20.0), "batch_size": 20}
SECOND = [ClassifierRetraining, LearnableWeightScaling]


def decaying_sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.05)


def run(method, epochs=2, net="conv-norm-dropout", **options):
    recipe = Recipe(
        method, {"optimizer": decaying_sgd, "lr_scheduler": None, **options}, net=net, data=TAIL,
        trainer={"max_epochs": epochs},
    )  # fmt: skip
    return fit(recipe)


def state_of(trainer):
    return {k: v for k, v in trainer.lightning_module.state_dict().items() if k.startswith("net.")}


@pytest.mark.parametrize("method", SECOND)
def test_the_first_stage_is_cross_entropy_and_the_second_moves_its_own_part_alone(method):
    plain = state_of(run(CrossEntropy, epochs=1))
    first, second = state_of(run(method, epochs=1, from_epoch=1)), state_of(run(method, from_epoch=1))
    assert different(plain, first) == []
    # batch norm's statistics and decayed weights too are what they were
    moved = different(first, second)
    assert moved == (["net.head.bias", "net.head.weight"] if method is ClassifierRetraining else [])


def test_the_new_classifier_knows_nothing_of_the_old_one():
    # nothing is learned at a rate of 0: what is left is the draw
    def still(params):
        return torch.optim.SGD(params, lr=0.0)

    drawn = state_of(run(ClassifierRetraining, from_epoch=1, optimizer=still))
    plain = state_of(run(CrossEntropy, epochs=1, optimizer=still))
    assert different(plain, drawn) == ["net.head.bias", "net.head.weight"]
    bound = drawn["net.head.weight"].shape[1] ** -0.5
    assert 0.8 * bound < drawn["net.head.weight"].abs().max() <= bound
    correlation = np.corrcoef(drawn["net.head.weight"].flatten(), plain["net.head.weight"].flatten())[0, 1]
    assert abs(correlation) < 0.35
    # the same draw in every run of this seed
    assert different(drawn, state_of(run(ClassifierRetraining, from_epoch=1, optimizer=still))) == []


def test_the_scales_are_one_until_they_are_learned_and_part_of_every_prediction():
    module = run(LearnableWeightScaling, epochs=1, from_epoch=1).lightning_module
    assert torch.equal(module.class_scale, torch.ones(CLASSES))
    trainer = run(LearnableWeightScaling, from_epoch=1)
    module, x = trainer.lightning_module.eval(), digits()[0][:6].float()
    assert (module.class_scale != 1).all()
    with torch.no_grad():
        expected = module.net(x) * module.class_scale
        torch.testing.assert_close(module(x), expected)
        torch.testing.assert_close(module.predict_step((x,), 0)["prob"], expected.softmax(1))
    # the optimizer has a momentum of the scales alone
    assert [tuple(state["momentum_buffer"].shape) for state in trainer.optimizers[0].state.values()] == [(CLASSES,)]


def test_the_scales_are_learned_by_gradient_descent():
    x, y = digits()[0][:30].flatten(1).float() / 255, digits()[1][:30]
    module = LearnableWeightScaling(NETS["mlp"](), CLASSES, from_epoch=0)
    batch = Batch(x, y)
    module.loss(module.outputs(module.net, batch), batch).backward()
    u = module.net(x).detach()
    expected = ((u.softmax(1) - F.one_hot(y, CLASSES)) * u).mean(0)
    torch.testing.assert_close(module.class_scale.grad, expected)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_tau_normalisation_is_of_predictions_alone(tau):
    trained, plain = run(TauNormalization, epochs=1, tau=tau), run(CrossEntropy, epochs=1)
    assert different(state_of(trained), state_of(plain)) == []
    module, x = trained.lightning_module.eval(), digits()[0][:6].float()
    with torch.no_grad():
        features = module.net.body(x)
        weight = module.net.head.weight
        expected = features @ (weight / weight.norm(dim=1, keepdim=True) ** tau).t()
        torch.testing.assert_close(module.predict_step((x,), 0)["prob"], expected.softmax(1))
        torch.testing.assert_close(module(x), module.net(x))


@pytest.mark.parametrize("method", SECOND)
def test_two_ranks_draw_and_learn_alike(method, ranks):
    recipe = Recipe(
        method, {"from_epoch": 1, "optimizer": sgd}, net="conv", data={"samples": 64, "batch_size": 4, "noise": 0.0},
        trainer={"max_epochs": 2, "strategy": "ddp", "devices": 2},
    )  # fmt: skip
    first, second = ranks(weights, recipe)
    assert different(first, second) == []


def weights(recipe):
    return {k: v for k, v in snapshot(fit(recipe)).items() if k.startswith(("module", "optimizer"))}


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (ClassifierRetraining, {"from_epoch": -1}, "from_epoch=-1"),
        (ClassifierRetraining, {"classifier": "body"}, "name='body' is no nn.Linear"),
        (LearnableWeightScaling, {"from_epoch": -1}, "from_epoch=-1"),
        (TauNormalization, {"tau": -0.1}, "tau=-0.1"),
    ],
)
def test_bad_arguments(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(TinyConv(), CLASSES, **options)
