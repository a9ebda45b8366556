"""What a virtual step leaves behind: nothing."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lightning_perturb.bilevel import Bilevel

ENGINES = ["forward", "higher", "central"]


def bits(problem, optimizer):
    tensors = [*problem.net.state_dict().values(), *problem.theta]
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    tensors += [p.grad for p in problem.net.parameters() if p.grad is not None]
    return [t.detach().clone() for t in tensors]


def same(left, right):
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("net", ["conv-bn", "dropout", "transformer-dropout"])
def test_everything_but_one_training_forward_is_bit_identical(make, engine, momentum, net):
    problem, twin = make(net, "mw-net"), make(net, "mw-net")
    optimizers = [
        torch.optim.SGD(p.net.parameters(), 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)
        for p in (problem, twin)
    ]
    for each, optimizer in zip((problem, twin), optimizers, strict=True):
        torch.manual_seed(3)
        each.loss(each.outputs(each.net, each.train), each.train).backward()
        optimizer.step()
        for parameter in each.theta:
            parameter.grad = None
    torch.manual_seed(4)
    outputs = twin.outputs(twin.net, twin.train)
    after = torch.get_rng_state()

    torch.manual_seed(4)
    bilevel = Bilevel(
        problem.net, problem.outputs, problem.loss, problem.meta_loss, engine=engine, momentum=momentum
    )  # fmt: skip
    result = bilevel.hypergradient(problem.train, problem.meta, problem.theta, optimizers[0])

    assert torch.equal(torch.get_rng_state(), after)
    assert same(bits(problem, optimizers[0]), bits(twin, optimizers[1]))
    assert all(parameter.grad is None for parameter in problem.theta)
    assert torch.equal(result.training_outputs()["logits"], outputs["logits"])
    # the real step from the shared forward is the ordinary step
    for each, optimizer, found in (
        (problem, optimizers[0], result.training_outputs()), (twin, optimizers[1], outputs)
    ):  # fmt: skip
        optimizer.zero_grad()
        each.loss(found, each.train).backward()
        optimizer.step()
    assert same(bits(problem, optimizers[0]), bits(twin, optimizers[1]))


@pytest.mark.parametrize("engine", ENGINES)
def test_random_state_is_restored_after_an_error(make, engine):
    problem = make("dropout", "mw-net")

    def broken(call, batch):
        call(batch[0])
        raise KeyError("meta")

    torch.manual_seed(0)
    problem.net(problem.train[0])
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    with pytest.raises(KeyError):
        Bilevel(problem.net, problem.outputs, problem.loss, broken, engine=engine).hypergradient(
            problem.train, problem.meta, problem.theta, 0.1
        )
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_graph_outlives_the_result(make, engine):
    problem = make("conv-bn", "iada")
    made = []

    def outputs(call, batch):
        found = call(batch[0])
        made.extend(weakref.ref(tensor) for name, tensor in found.items() if name != "weight")
        return found

    def loss(outputs, batch):
        value = problem.loss(outputs, batch)
        made.append(weakref.ref(value))
        return value

    gc.collect()
    gc.disable()
    try:
        bilevel = Bilevel(problem.net, outputs, loss, problem.meta_loss, engine=engine)
        result = bilevel.hypergradient(problem.train, problem.meta, problem.theta, 0.1)
        assert all(gradient.grad_fn is None for gradient in result.gradients)
        assert result.meta_loss.grad_fn is None
        assert result.loss.grad_fn is None
        kept = [ref for ref in made if ref() is not None]
        assert len(kept) == 2  # logits and features of the training forward
        del result
        assert all(ref() is None for ref in made)
    finally:
        gc.enable()


def test_buffers_of_the_meta_pass_are_private():
    """Running statistics move by the training batch alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    tau = torch.ones(2, requires_grad=True)
    bilevel = Bilevel(
        net, lambda call, x: {"logits": call(x)}, lambda o, x: (o["logits"] * tau).square().mean(),
        lambda call, x: call(x + 100).square().mean(),
    )  # fmt: skip
    x = torch.randn(8, 2)
    for _ in range(3):
        bilevel.hypergradient(x, x, [tau], 0.1)
    assert net[1].num_batches_tracked == 3
    assert net[1].running_mean.abs().max() < 10
