"""LPL on two ranks: the statistics of a batch are those of all of them."""

import torch
from testkit.training import Recipe, fit
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.core.distributed import gather_batch, rank
from lightning_perturb.methods import LPL


def through_ranks(u, y):
    """The loss and its gradient in u where each rank has every second row."""
    mine = u[rank() :: 2].requires_grad_()
    (rows, target), own = gather_batch(mine, y[rank() :: 2])
    loss = (rows.square().sum() * rows[own].exp().sum()) / 2
    loss.backward()
    return rows.detach(), target, own, mine.grad


def test_gradients_flow_through_the_rows_of_all_ranks(ranks):
    u, y = torch.randn(5, 3, dtype=torch.float64), torch.arange(5)
    whole = u.clone().requires_grad_()
    (whole.square().sum() * whole.exp().sum() / 2).backward()
    for me, (rows, target, own, grad) in enumerate(ranks(through_ranks, u, y)):
        assert target.tolist() == [0, 2, 4, 1, 3]
        assert torch.equal(rows, u[target])
        assert own == (slice(0, 3), slice(3, 5))[me]
        torch.testing.assert_close(grad, whole.grad[me::2])


def alone_or_together(sync):
    u = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 3], [1, 0, 0]])
    y = torch.tensor([0, 1, 2, 0])
    mine = slice(2 * rank(), 2 * rank() + 2)
    module = LPL(nn.Linear(1, 3), 3, sync_stats=sync, eps=0.5, delta_eps=0.0, alpha=0.1)
    return module.perturb_logits(u[mine], {}, Batch(u[mine], y[mine])) - u[mine], LPL(
        nn.Linear(1, 3), 3, eps=0.5, delta_eps=0.0, alpha=0.1
    )._split(u, y)


def test_statistics_are_those_of_all_ranks_unless_asked_otherwise(ranks):
    together, alone = ranks(alone_or_together, True), ranks(alone_or_together, False)
    # class 0 is on both ranks and gets one perturbation
    torch.testing.assert_close(together[0][0][0], together[1][0][1])
    assert not torch.allclose(alone[0][0][0], alone[1][0][1])


def test_a_rank_without_a_class_that_the_other_has(ranks):
    for options in ({}, {"split": "frequency"}):
        recipe = Recipe(LPL, options, data={"samples": 40, "noise": 0.0, "batch_size": 2}, trainer={"max_epochs": 1})
        first, second = ranks(weights, recipe.but(trainer={"strategy": "ddp", "devices": 2}))
        assert torch.equal(first, second)


def weights(recipe):
    return fit(recipe).lightning_module.net.classifier.weight.detach()
