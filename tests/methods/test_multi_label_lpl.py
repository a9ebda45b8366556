"""LPL for several labels: the shift of equation 34, and what it is combined with."""

import pytest
import torch
import torch.nn.functional as F
from testkit.training import Recipe, fit, snapshot
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import (
    RBCE,
    RBCELPL,
    BinaryCrossEntropy,
    MultiLabelLPL,
    RBCEFocal,
    RBCEFocalLPL,
)

# the rarest class first: ranks are 4, 2, 1, 3
COUNTS = torch.tensor([2, 20, 40, 8])


def ready(method=MultiLabelLPL, **options):
    module = method(nn.Linear(2, 4), 4, class_counts=COUNTS.tolist(), **options).double()
    module.class_counts.copy_(COUNTS)
    module.use_counts(module.class_counts)
    return module


def problem(samples=20):
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(samples, 4, generator=generator) < 0.4).double()
    return torch.randn(samples, 4, generator=generator, dtype=torch.float64), y


def shift_of(module):
    logits, y = problem()
    moved = module.perturb_logits(logits, {}, Batch(torch.empty(20, 2), y)) - logits
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    return moved[0]


def test_ranks_come_from_the_counts():
    # varied bounds: head n_c / n_1, tail n_C / n_c; the head is raised, the tail lowered
    expected = 0.2 * torch.tensor([-2 / 2, 20 / 40, 40 / 40, -2 / 8], dtype=torch.float64)
    torch.testing.assert_close(shift_of(ready()), expected, rtol=1e-6, atol=0)
    assert ready().sign.tolist() == [1, -1, -1, 1]
    fixed = shift_of(ready(eps=0.1, delta_eps=0.0))
    torch.testing.assert_close(fixed, 0.1 * torch.tensor([-1, 1, 1, -1], dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_three_settings_of_the_threshold():
    logits, y = problem()
    batch = Batch(torch.empty(20, 2), y)
    # [lpl 35]: positives' losses rise everywhere; [lpl 36]: they fall
    for head, sign in ((0, -1), (4, 1)):
        module = ready(head=head, eps=0.3, delta_eps=0.0)
        torch.testing.assert_close(
            shift_of(module), torch.full((4,), 0.3 * sign, dtype=torch.float64), rtol=1e-6, atol=0
        )
        positive = lambda u: (F.softplus(-u) * y).sum()  # noqa: E731
        moved = module.perturb_logits(logits, {}, batch)
        assert (positive(moved) > positive(logits)) == (head == 0)
    assert [int((ready(head=head).sign < 0).sum()) for head in (0.25, 0.5, 3)] == [1, 2, 3]


def test_a_share_does_not_lose_a_class_to_rounding():
    module = MultiLabelLPL(nn.Linear(2, 100), 100, head=0.29)
    module.use_counts(torch.arange(100, 0, -1))
    assert int((module.sign < 0).sum()) == 29


@pytest.mark.parametrize("solver", ["closed_form", "pgd"])
def test_bounds_of_zero_are_binary_cross_entropy_exactly(solver):
    lpl = Recipe(MultiLabelLPL, {"eps": 0.0, "delta_eps": 0.0, "solver": solver}, trainer={"max_epochs": 1})
    one, plain = (
        {k: v for k, v in snapshot(fit(r)).items() if "net" in k}
        for r in (lpl, Recipe(BinaryCrossEntropy, trainer={"max_epochs": 1}))
    )
    assert all(torch.equal(one[k], plain[k]) for k in plain)


def test_steps_end_at_the_bound():
    closed = shift_of(ready(eps=0.1, delta_eps=0.0))
    torch.testing.assert_close(shift_of(ready(eps=0.1, delta_eps=0.0, solver="pgd", steps=50)), closed)
    few = shift_of(ready(eps=0.1, delta_eps=0.0, solver="pgd", steps=1, alpha=0.01))
    assert (few.abs() < closed.abs()).all()
    assert torch.equal(few.sign(), closed.sign())
    assert not shift_of(ready(solver="pgd", steps=0)).any()


@pytest.mark.parametrize(("combined", "base"), [(RBCELPL, RBCE), (RBCEFocalLPL, RBCEFocal)])
def test_over_rbce_it_is_rbce_at_the_moved_logits(combined, base):
    logits, y = problem()
    batch = Batch(torch.empty(20, 2), y)
    one, other = ready(combined, delta_eps=0.3), ready(base)
    moved = one.perturb_logits(logits, {}, batch)
    torch.testing.assert_close(one.loss({"logits": logits}, batch), other.loss({"logits": moved}, batch))
    still = ready(combined, eps=0.0, delta_eps=0.0)
    assert torch.equal(still.loss({"logits": logits}, batch), other.loss({"logits": logits}, batch))
    assert "__init__" not in vars(combined), "the classes cooperate"


def test_evaluation_reads_the_plain_logits():
    module = ready()
    x = torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(module.evaluation_logits(x), module.net(x))


def test_ties_and_arguments():
    module = MultiLabelLPL(nn.Linear(2, 4), 4)
    module.use_counts(torch.tensor([5, 5, 5, 5]))
    assert module.sign.tolist() == [-1, -1, 1, 1], "of equals the smaller id is first"
    for options in (
        {"head": 1.5}, {"eps": -0.1}, {"delta_eps": -0.1}, {"solver": "newton"}, {"alpha": 0.0}, {"steps": -1},
    ):  # fmt: skip
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            MultiLabelLPL(nn.Linear(2, 4), 4, **options)
