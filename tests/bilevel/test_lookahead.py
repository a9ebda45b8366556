"""The inner rule: momentum, weight decay, groups, and a part of the network."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_perturb.bilevel import Bilevel


def solve(problem, lr, engine="forward", **options):
    bilevel = Bilevel(problem.net, problem.outputs, problem.loss, problem.meta_loss, engine=engine, **options)
    return bilevel.hypergradient(problem.train, problem.meta, problem.theta, lr).gradients


RULES = [
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    {"weight_decay": 0.1},
    {},
]


@pytest.mark.parametrize("engine", ["forward", "higher"])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("rule", RULES)
def test_momentum_and_weight_decay(make, reference, assert_equal, rule, steps, engine):
    problem = make("mlp", "mw-net")
    optimizer = torch.optim.SGD(problem.net.parameters(), 0.3, **rule)
    for _ in range(steps):
        optimizer.zero_grad()
        problem.loss(problem.outputs(problem.net, problem.train), problem.train).backward()
        optimizer.step()
    expected, _ = reference(problem, optimizer=optimizer)
    assert_equal(solve(problem, optimizer, engine, momentum=True), expected, 1e-10)
    if rule and steps:  # and it matters: the look-ahead of plain SGD is another one
        plain = solve(problem, optimizer, engine)
        assert (plain[0] - expected[0]).norm() > 1e-6 * expected[0].norm()


@pytest.mark.parametrize("engine", ["forward", "higher"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_plain_look_ahead_takes_the_rates_of_the_groups(make, reference, assert_equal, optimizer, engine):
    problem = make("mlp", "mw-net")
    groups = [
        {"params": problem.net.fc.parameters(), "lr": 0.5},
        {"params": problem.net.backbone.parameters(), "lr": 0.1},
    ]
    plain = torch.optim.SGD([{**group, "params": list(group["params"])} for group in groups])
    expected, _ = reference(problem, optimizer=plain)
    found = solve(problem, optimizer([{**g} for g in plain.param_groups]), engine)
    assert_equal(found, expected, 1e-10)


@pytest.mark.parametrize("engine", ["forward", "higher"])
@pytest.mark.parametrize("way", ["names", "optimizer", "frozen"])
def test_part_of_the_network(make, reference, assert_equal, engine, way):
    problem = make("conv-bn", "iada")
    part = [*problem.net.backbone[3].parameters(), *problem.net.fc.parameters()]
    expected, _ = reference(problem, optimizer=torch.optim.SGD(part, 0.3))
    if way == "names":
        found = solve(problem, 0.3, engine, look_ahead=["backbone.3", "fc.weight", "fc.bias"])
    elif way == "optimizer":
        found = solve(problem, torch.optim.SGD(part, 0.3), engine)
    else:
        for parameter in problem.net.parameters():
            parameter.requires_grad_(any(parameter is kept for kept in part))
        found = solve(problem, 0.3, engine)
    assert_equal(found, expected, 1e-10)
    whole, _ = reference(problem)
    assert way == "frozen" or (whole[0] - expected[0]).norm() > 1e-3 * expected[0].norm()


def test_errors():
    net = nn.Linear(2, 2)
    theta = torch.ones((), requires_grad=True)
    problem = SimpleNamespace(
        net=net, outputs=lambda call, x: {"o": call(x)}, loss=lambda o, x: (o["o"] * theta).square().mean(),
        meta_loss=lambda call, x: call(x).mean(), train=torch.ones(1, 2), meta=torch.ones(1, 2), theta=[theta],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"look_ahead names 'weights'"):
        solve(problem, 0.1, look_ahead=["weights"])
    with pytest.raises(ValueError, match=r"Give a list of names: \['weight'\]"):
        solve(problem, 0.1, look_ahead="weight")
    with pytest.raises(ValueError, match=r"momentum=True needs the optimizer itself, but lr=0\.1"):
        solve(problem, 0.1, momentum=True)
    with pytest.raises(ValueError, match=r"not Adam\."):
        solve(problem, torch.optim.Adam(net.parameters()), momentum=True)
    with pytest.raises(ValueError, match="no parameter is left"):
        solve(problem, torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1))
    with pytest.raises(ValueError, match=r"engine='fast' is unknown"):
        solve(problem, 0.1, engine="fast")
    with pytest.raises(ValueError, match=r"inner_steps=2 does not go with engine='forward'"):
        solve(problem, 0.1, inner_steps=2)
    problem.theta = [torch.ones(())]
    with pytest.raises(ValueError, match="meta_parameters must be tensors with requires_grad=True"):
        solve(problem, 0.1)
