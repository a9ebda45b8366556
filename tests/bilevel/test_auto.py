"""Where the first-order formula does not hold: what is found out, and what "auto" does then."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_perturb.bilevel import Bilevel, NotFirstOrderError


def problem_for(net, shape=(6, 4), loss=None):
    """A classification with a learned scale per class. Returns arguments of Bilevel, θ, and both batches."""
    net = net.double()
    theta = torch.linspace(0.5, 1.5, 3, dtype=torch.float64).requires_grad_()
    torch.manual_seed(1)
    train, meta = ((torch.randn(shape, dtype=torch.float64), torch.randint(3, shape[:1])) for _ in range(2))
    arguments = (
        net,
        lambda call, batch: {"logits": call(batch[0])},
        loss or (lambda outputs, batch: F.cross_entropy(outputs["logits"] * theta, batch[1])),
        lambda call, batch: F.cross_entropy(call(batch[0]), batch[1]),
    )
    return arguments, theta, train, meta


def double_backward(arguments, theta, train, meta, lr=0.3):
    """The gradient by two nested backward passes; ``theta`` may act anywhere."""
    net, outputs, loss, meta_loss = arguments
    names = dict(net.named_parameters())
    buffers = {n: b.clone() for n, b in net.named_buffers()}

    def with_(parameters):
        return lambda *args: torch.func.functional_call(net, {**parameters, **buffers}, args)

    names = {n: p for n, p in names.items() if p is not theta}
    inner = loss(outputs(with_(names), train), train)
    gradients = torch.autograd.grad(inner, list(names.values()), create_graph=True)
    ahead = {n: p - lr * g for (n, p), g in zip(names.items(), gradients, strict=True)}
    return torch.autograd.grad(meta_loss(with_(ahead), meta), theta)[0]


class Custom(torch.autograd.Function):
    """Doubles; without a forward rule."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class CustomNet(nn.Linear):
    def forward(self, x):
        return torch.tanh(Custom.apply(super().forward(x)))


class Wrong(Custom):
    """Its forward rule contradicts its derivative."""

    @staticmethod
    def jvp(ctx, dx):
        return dx


class WrongNet(nn.Linear):
    def forward(self, x):
        return torch.tanh(Wrong.apply(super().forward(x)))


class Stopped(nn.Linear):
    """Forward mode sees through no_grad, the backward pass does not."""

    def forward(self, x):
        out = super().forward(x)
        with torch.no_grad():
            size = out.square().sum(1, keepdim=True)
        return out / (1 + size)


class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(9, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(torch.tanh(self.bag((x.abs() * 3).long())))


class Forgetful(nn.Linear):
    """Draws numbers that no random state of torch repeats."""

    draws = 0

    def forward(self, x):
        self.draws += 1
        return super().forward(x) * (1 + torch.arange(3) * self.draws % 3)


def first_layer(change):
    return lambda: nn.Sequential(change(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


NO_FORWARD = {
    "custom": lambda: CustomNet(4, 3),
    "weight-norm": first_layer(nn.utils.parametrizations.weight_norm),
    "spectral-norm": first_layer(nn.utils.parametrizations.spectral_norm),
    "old-spectral-norm": first_layer(nn.utils.spectral_norm),
}


@pytest.mark.parametrize("name", NO_FORWARD)
def test_layers_without_forward_rules(name):
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(NO_FORWARD[name]())
    start = {n: v.clone() for n, v in arguments[0].state_dict().items()}
    expected = double_backward(arguments, theta, train, meta)
    arguments[0].load_state_dict(start)
    with pytest.raises(NotFirstOrderError, match="forward"):
        Bilevel(*arguments, engine="forward").hypergradient(train, meta, [theta], 0.3)
    arguments[0].load_state_dict(start)
    if "spectral" not in name:  # whose power iteration is a constant of the backward pass, but moves in a difference
        central = Bilevel(*arguments, engine="central").hypergradient(train, meta, [theta], 0.3).gradients[0]
        torch.testing.assert_close(central, expected, rtol=1e-6, atol=1e-9)

    arguments[0].load_state_dict(start)
    bilevel = Bilevel(*arguments)
    with pytest.warns(UserWarning, match="engine='auto' goes on with engine='higher'"):
        result = bilevel.hypergradient(train, meta, [theta], 0.3)
    torch.testing.assert_close(result.gradients[0], expected, rtol=1e-10, atol=1e-13)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once only
        bilevel.hypergradient(train, meta, [theta], 0.3)


@pytest.mark.parametrize("net", [WrongNet, Stopped, Forgetful])
def test_a_wrong_tangent_is_found(net):
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(net(4, 3))
    with pytest.raises(NotFirstOrderError, match="the tangent and the backward pass disagree"):
        Bilevel(*arguments, engine="forward").hypergradient(train, meta, [theta], 0.3)
    if net is Forgetful:
        return
    with pytest.warns(UserWarning, match="the tangent and the backward pass disagree"):
        result = Bilevel(*arguments).hypergradient(train, meta, [theta], 0.3)
    torch.testing.assert_close(
        result.gradients[0], double_backward(arguments, theta, train, meta), rtol=1e-10, atol=1e-13
    )


def test_a_compiled_network_runs_uncompiled():
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(nn.Linear(4, 3))
    expected = double_backward(arguments, theta, train, meta)
    compiled = torch.compile(arguments[0], backend="aot_eager")
    found = Bilevel(compiled, *arguments[1:], engine="forward", look_ahead=["weight", "bias"]).hypergradient(
        train, meta, [theta], 0.3
    )
    torch.testing.assert_close(found.gradients[0], expected, rtol=1e-10, atol=1e-13)


def test_a_wrong_tangent_on_another_rank_is_found():
    """All ranks must take the same way, or they wait for each other."""
    arguments, theta, train, meta = problem_for(nn.Linear(4, 3))

    def reduce(tensors):
        return [torch.tensor(0.5)] if [t.dtype for t in tensors] == [torch.float32] else tensors

    with pytest.raises(NotFirstOrderError, match=r"disagree.*Take engine='auto' or engine='higher'"):
        Bilevel(*arguments, engine="forward", reduce=reduce).hypergradient(train, meta, [theta], 0.3)


def test_embedding_bag_by_central_differences():
    """It has neither a forward rule nor a second derivative."""
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(Bags())
    with pytest.raises(NotFirstOrderError):
        Bilevel(*arguments, engine="forward").hypergradient(train, meta, [theta], 0.3)
    found = Bilevel(*arguments, engine="central").hypergradient(train, meta, [theta], 0.3).gradients[0]

    def meta_loss_at(value):
        with torch.no_grad():
            theta.copy_(value)
        net, outputs, loss, meta_loss = arguments
        names = dict(net.named_parameters())
        gradients = torch.autograd.grad(loss(outputs(net, train), train), list(names.values()))
        ahead = {n: p - 0.3 * g for (n, p), g in zip(names.items(), gradients, strict=True)}
        return meta_loss(lambda x: torch.func.functional_call(net, ahead, (x,)), meta).item()

    at, width = theta.detach().clone(), 1e-5
    expected = [
        (meta_loss_at(at + width * unit) - meta_loss_at(at - width * unit)) / (2 * width)
        for unit in torch.eye(3, dtype=torch.float64)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-10)


class Gated(nn.Module):
    """A parameter of the network itself is the meta parameter."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
        self.one, self.norm, self.two = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x):
        return self.two(torch.tanh(self.norm(self.one(x)))) * self.gate


class Moving(nn.Linear):
    """Its buffer moves with every forward and is read in the next."""

    def __init__(self):
        super().__init__(4, 3)
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x):
        out = torch.tanh(super().forward(x))
        self.center.mul_(0.5).add_(0.5 * out.detach().mean(0))
        return out - 3 * self.center


def test_buffers_that_move_and_are_read():
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(Moving())
    expected = double_backward(arguments, theta, train, meta)
    for engine in ("forward", "higher", "auto"):
        arguments[0].center.zero_()
        result = Bilevel(*arguments, engine=engine).hypergradient(train, meta, [theta], 0.3)
        torch.testing.assert_close(result.gradients[0], expected, rtol=1e-10, atol=1e-13)
    # a difference sees the buffer move with the weights, which the backward pass takes for a constant
    with pytest.raises(NotFirstOrderError, match="the tangent and the backward pass disagree"):
        Bilevel(*arguments, engine="central").hypergradient(train, meta, [theta], 0.3)


@pytest.mark.parametrize("where", ["inside", "before"])
def test_meta_parameters_inside_or_before_the_network(where):
    torch.manual_seed(0)
    net = Gated()
    plain = lambda outputs, batch: F.cross_entropy(outputs["logits"], batch[1])  # noqa: E731
    arguments, theta, train, meta = problem_for(net, loss=plain)
    if where == "inside":
        theta = net.gate
    else:
        theta = torch.linspace(0.5, 1.5, 4, dtype=torch.float64).requires_grad_()
        arguments = (net, lambda call, batch: {"logits": call(batch[0] * theta)}, *arguments[2:])
    expected = double_backward(arguments, theta, train, meta)
    with pytest.raises(NotFirstOrderError, match="the outputs depend on the meta parameters"):
        Bilevel(*arguments, engine="forward").hypergradient(train, meta, [theta], 0.3)
    net.norm.reset_running_stats()
    bilevel = Bilevel(*arguments)
    with pytest.warns(UserWarning, match="the outputs depend on the meta parameters"):
        result = bilevel.hypergradient(train, meta, [theta], 0.3)
    torch.testing.assert_close(result.gradients[0], expected, rtol=1e-10, atol=1e-13)

    # the real step sees θ as it is after the meta step, and the running statistics move once
    with torch.no_grad():
        theta -= 0.1
    assert net.norm.num_batches_tracked == 1
    mean = net.norm.running_mean.clone()
    fresh = result.training_outputs()["logits"]
    assert net.norm.num_batches_tracked == 1
    assert torch.equal(net.norm.running_mean, mean)
    assert torch.equal(fresh, arguments[1](net, train)["logits"])
    fresh.sum().backward()
    assert net.one.weight.grad is not None


def test_meta_parameters_in_the_meta_loss_too():
    torch.manual_seed(0)
    arguments, theta, train, meta = problem_for(nn.Linear(4, 3))
    inner = arguments[3]
    arguments = (*arguments[:3], lambda call, batch: inner(call, batch) + 0.1 * theta.square().sum())
    expected = double_backward(arguments, theta, train, meta)
    for engine in ("forward", "higher"):
        found = Bilevel(*arguments, engine=engine).hypergradient(train, meta, [theta], 0.3).gradients[0]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("engine", ["forward", "higher"])
def test_a_loss_without_meta_parameters(engine):
    arguments, theta, train, meta = problem_for(
        nn.Linear(4, 3), loss=lambda outputs, batch: F.cross_entropy(outputs["logits"], batch[1])
    )
    with pytest.raises(ValueError, match="does not depend on any meta parameter"):
        Bilevel(*arguments, engine=engine).hypergradient(train, meta, [theta], 0.3)


def test_one_unused_meta_parameter_gets_zeros():
    arguments, theta, train, meta = problem_for(nn.Linear(4, 3))
    unused = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for engine in ("forward", "higher", "central"):
        gradients = Bilevel(*arguments, engine=engine).hypergradient(train, meta, [unused, theta], 0.3).gradients
        assert torch.equal(gradients[0], torch.zeros(2, dtype=torch.float64))
        assert gradients[1].norm() > 0


def test_a_loss_that_reads_a_parameter_past_its_outputs():
    net = nn.Linear(4, 3)
    arguments, theta, train, meta = problem_for(
        net,
        loss=lambda outputs, batch: F.cross_entropy(outputs["logits"] * theta, batch[1]) + net.weight.square().sum(),
    )
    for engine in ("forward", "higher", "central", "auto"):
        with pytest.raises(ValueError, match="reads the parameter 'weight' of the network directly"):
            Bilevel(*arguments, engine=engine).hypergradient(train, meta, [theta], 0.3)


def test_weight_taken_by_a_hook():
    """Features and classifier of a network that does not give them away."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    found = {}
    net[2].register_forward_hook(lambda module, args, out: found.update(features=args[0], weight=module.weight))
    arguments, theta, train, meta = problem_for(net)

    def outputs(call, batch):
        return {"logits": call(batch[0]), **found}

    def loss(outputs, batch):
        spread = (outputs["weight"] * theta[:, None]).square().sum() * outputs["features"].square().mean()
        return F.cross_entropy(outputs["logits"], batch[1]) + spread

    arguments = (arguments[0], outputs, loss, arguments[3])
    expected = double_backward(arguments, theta, train, meta)
    for engine in ("forward", "higher"):
        result = Bilevel(*arguments, engine=engine).hypergradient(train, meta, [theta], 0.3)
        torch.testing.assert_close(result.gradients[0], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("engine", ["higher", "auto"])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("net", ["mlp", "conv-bn"])
def test_several_inner_steps(make, reference, assert_equal, net, momentum, engine):
    problem = make(net, "mw-net")
    rule = {"momentum": 0.9, "weight_decay": 0.01} if momentum else {}
    optimizer = torch.optim.SGD(problem.net.parameters(), 0.3, **rule)
    expected, meta_loss = reference(problem, optimizer=optimizer, steps=3)
    bilevel = Bilevel(
        problem.net, problem.outputs, problem.loss, problem.meta_loss, engine=engine, momentum=momentum, inner_steps=3
    )
    result = bilevel.hypergradient(problem.train, problem.meta, problem.theta, optimizer)
    assert_equal(result.gradients, expected, 1e-10)
    torch.testing.assert_close(result.meta_loss, meta_loss, rtol=1e-12, atol=0)
