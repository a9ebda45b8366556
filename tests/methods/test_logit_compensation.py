"""LC: the learned scales and shifts, and R-BCE over them."""

import pytest
import torch
import torch.nn.functional as F
from testkit.training import Recipe, fit, sgd
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.functional import logit_compensation_loss
from lightning_perturb.methods import LC, RBCE, RBCELC, RBCEFocal, RBCEFocalLC

COUNTS = [9, 4, 2]


def problem():
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(12, 3, generator=generator) < 0.5).double()
    return torch.randn(12, 3, generator=generator, dtype=torch.float64), y


def moved(module):
    """With scales and shifts that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        module.label_scale.copy_(torch.randn(2, 3, generator=generator))
        module.label_shift.copy_(torch.randn(2, 3, generator=generator))
    return module.double()


def test_it_begins_as_binary_cross_entropy():
    logits, y = problem()
    module = LC(nn.Linear(2, 3), 3).double()
    found = module.loss({"logits": logits}, Batch(torch.empty(12, 2), y))
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits, y), rtol=1e-6, atol=0)


def test_against_equation_12():
    logits, y = problem()
    module = moved(LC(nn.Linear(2, 3), 3))
    (negative, positive), (negative_shift, positive_shift) = F.softplus(module.label_scale), module.label_shift
    expected = logit_compensation_loss(logits, y, positive, positive_shift, negative, negative_shift)
    batch = Batch(torch.empty(12, 2), y)
    torch.testing.assert_close(module.loss({"logits": logits}, batch), expected.mean())
    assert torch.equal(module.evaluation_logits(torch.ones(1, 2).double()), module.net(torch.ones(1, 2).double()))


@pytest.mark.parametrize(("combined", "base"), [(RBCELC, RBCE), (RBCEFocalLC, RBCEFocal)])
def test_over_rbce_it_is_rbce_at_the_compensated_logits(combined, base):
    logits, y = problem()
    batch = Batch(torch.empty(12, 2), y)
    one, other = moved(combined(nn.Linear(2, 3), 3)), base(nn.Linear(2, 3), 3).double()
    for module in (one, other):
        module.class_counts.copy_(torch.tensor(COUNTS))
    at = one.perturb_logits(logits, {}, batch)
    torch.testing.assert_close(one.loss({"logits": logits}, batch), other.loss({"logits": at}, batch))


def test_scales_and_shifts_are_trained_without_weight_decay():
    def decaying(params):
        return torch.optim.SGD(params, lr=0.2, weight_decay=0.1)

    recipe = Recipe(LC, {"optimizer": decaying, "compensation_rate": 0.5}, trainer={"max_epochs": 1})
    module = fit(recipe.but(options={"lr_scheduler": None})).lightning_module
    assert (module.label_shift != 0).all()
    assert (F.softplus(module.label_scale) != 1).any()
    network, own = module.trainer.optimizers[0].param_groups
    assert (network["weight_decay"], own["weight_decay"]) == (0.1, 0.0)
    assert (network["lr"], own["lr"]) == (0.2, 0.1)
    assert "lr_factor" not in own
    assert {id(p) for p in own["params"]} == {id(module.label_scale), id(module.label_shift)}
    assert {id(p) for p in network["params"]} == {id(p) for p in module.net.parameters()}


def first_epochs(recipe: Recipe) -> list:
    module = fit(recipe).lightning_module
    return [float(module.label_shift.abs().sum()), float(module.net.classifier.weight.sum())]


def test_warm_up_on_two_ranks_waits_for_no_gradient(ranks):
    recipe = Recipe(LC, {"warmup_epochs": 1, "optimizer": sgd}, trainer={"max_epochs": 1})
    recipe = recipe.but(trainer={"strategy": "ddp", "devices": 2})
    one, two = ranks(first_epochs, recipe)
    assert one == two
    assert one[0] == 0
