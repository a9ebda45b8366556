"""Two gloo ranks with batch B against one process with 2B."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn

from lightning_perturb.bilevel import Bilevel, mean_over_ranks

STEPS, B = 3, 4


def data(step, part):
    """Training and meta batch of one step: the whole, or the half of one rank."""
    generator = torch.Generator().manual_seed(step)
    whole = [
        (
            torch.randn(2 * B, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (2 * B,), generator=generator),
        )
        for _ in range(2)
    ]
    return [(x[part], y[part]) for x, y in whole]


def train(part, engine, inner_steps, momentum):
    """A few full steps in a plain loop; returns meta gradients, θ and weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    meta_net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()).double()
    theta = list(meta_net.parameters())
    optimizer = torch.optim.SGD(net.parameters(), 0.5, momentum=0.9, weight_decay=1e-2)
    meta_optimizer = torch.optim.Adam(theta, 0.05)

    def loss(outputs, batch):
        losses = F.cross_entropy(outputs["logits"], batch[1], reduction="none")
        return (meta_net(losses.detach()[:, None])[:, 0] * losses).mean()

    bilevel = Bilevel(
        net, lambda call, batch: {"logits": call(batch[0])}, loss,
        lambda call, batch: F.cross_entropy(call(batch[0]), batch[1]),
        engine=engine, reduce=mean_over_ranks, inner_steps=inner_steps, momentum=momentum,
    )  # fmt: skip
    found = []
    for step in range(STEPS):
        batch, meta_batch = data(step, part)
        result = bilevel.hypergradient(batch, meta_batch, theta, optimizer)
        found += [gradient.clone() for gradient in result.gradients]
        for parameter, gradient in zip(theta, result.gradients, strict=True):
            parameter.grad = gradient
        meta_optimizer.step()
        optimizer.zero_grad()
        loss(result.training_outputs(), batch).backward(inputs=list(net.parameters()))
        for parameter, gradient in zip(
            net.parameters(), mean_over_ranks([p.grad for p in net.parameters()]), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
    return [tensor.detach() for tensor in (*found, *theta, *net.parameters())]


CASES = [("forward", 1, False), ("forward", 1, True), ("central", 1, False), ("higher", 1, False), ("higher", 3, True)]


def run_rank():
    rank = distributed.get_rank()
    part = slice(rank * B, (rank + 1) * B)
    return [train(part, *case) for case in CASES]


@pytest.fixture(scope="module")
def found(ranks):
    """What both ranks found."""
    return ranks(run_rank, timeout=120.0)


@pytest.mark.parametrize("case", range(len(CASES)), ids=str)
def test_two_ranks_equal_one_process_with_the_double_batch(found, case):
    one = train(slice(None), *CASES[case])
    # rounding of a central difference is amplified by its width
    tolerance = 1e-10 if CASES[case][0] != "central" else 1e-7
    for whole, first, second in zip(one, found[0][case], found[1][case], strict=True):
        assert torch.equal(first, second)
        assert (first - whole).norm() <= tolerance * whole.norm()


def test_without_a_group_the_mean_is_the_value():
    value = torch.ones(2)
    assert mean_over_ranks([value])[0] is value
    assert mean_over_ranks([]) == []
