"""The two remedies against PyTorch's own forward rules."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from lightning_perturb.bilevel.fused import FusedTangents, RecordForward, dual, tangent_of
from lightning_perturb.bilevel.lookahead import inner_sgd, looked_ahead
from lightning_perturb.bilevel.replay import Moment
from lightning_perturb.bilevel.step import Step
from lightning_perturb.bilevel.tangents import forward_tangents


class Block(nn.Module):
    """Convolution, batch norm and a residual, in place where an eager net would be."""

    def __init__(self, dims: int, inplace: bool) -> None:
        super().__init__()
        conv, norm = [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)][dims - 1]
        self.one = conv(4, 4, 3, padding=1)
        self.norm = norm(4)
        self.two = conv(4, 4, 3, padding=2, dilation=2, groups=2, bias=False, padding_mode="circular")
        self.three = conv(4, 4, 3, padding="same")
        self.plain = norm(4, affine=False, track_running_stats=False)
        self.act = nn.ReLU(inplace=inplace)
        self.inplace = inplace

    def forward(self, x):
        h = self.act(self.norm(self.one(x)))
        h = self.act(self.two(h))  # no norm between: in place, this changes the recorded convolution
        h = self.three(h)
        if self.inplace:
            h += x
            h = F.silu(h, inplace=True)
        else:
            h = F.silu(h + x)
        return self.plain(h)


class Net(nn.Module):
    def __init__(self, dims: int = 2, inplace: bool = False) -> None:
        super().__init__()
        self.stem = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1](2, 4, 1)
        self.a, self.b, self.fc = Block(dims, inplace), Block(dims, inplace), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.b(self.a(self.stem(x))).flatten(2).mean(-1))


def step_for(net, x, names=None):
    """A problem of which only the tangent is of interest; and the recorded training forward."""
    start = Moment(net)
    with RecordForward() as recording:
        outputs = {"logits": net(x), "again": net(2 * x)}
    ahead = looked_ahead(net, [], 0.1, names)
    step = Step(
        net, lambda call, batch: {"logits": call(batch), "again": call(2 * batch)}, None, None, list, x, None, [],
        ahead, inner_sgd(ahead, 0.1, False), start,
    )  # fmt: skip
    direction = {name: torch.randn_like(p) for name, p in ahead.items()}
    return step, direction, recording, outputs


def both(net, x, names=None, rtol=1e-11):
    step, direction, recording, outputs = step_for(net, x, names)
    plain = forward_tangents(step, direction, nullcontext())
    unrecorded = forward_tangents(step, direction, FusedTangents())
    fused = forward_tangents(step, direction, recording.rules())
    for name in plain:
        assert plain[name].norm() > 0
        assert (fused[name] - plain[name]).norm() <= rtol * plain[name].norm()
        assert (unrecorded[name] - plain[name]).norm() <= rtol * plain[name].norm()
    return step, outputs


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_fused_equals_plain(dims, inplace):
    torch.manual_seed(0)
    net = Net(dims, inplace).double()
    x = torch.randn(5, 2, *[6] * dims, dtype=torch.float64)
    _, outputs = both(net, x)
    # what was recorded was not written to: the real step's graph is still whole
    outputs["again"].sum().backward()


@pytest.mark.parametrize(
    "names", [["fc"], ["b"], ["a.norm"], ["a.norm.bias", "fc"], ["a.three.bias"], ["stem", "b.two"]]
)
def test_part_of_the_network(names):
    torch.manual_seed(0)
    both(Net().double(), torch.randn(5, 2, 6, 6, dtype=torch.float64), names)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_norm_and_cumulative_average(momentum):
    torch.manual_seed(0)
    net = Net().double()
    net.b.norm.eval()
    net.a.norm.momentum = momentum
    both(net, torch.randn(5, 2, 6, 6, dtype=torch.float64))


def test_channels_last_and_bfloat16():
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)
    x = torch.randn(16, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    both(net, x, rtol=1e-5)
    step, direction, _, _ = step_for(net, x)
    exact = forward_tangents(step, direction, nullcontext())
    with torch.autocast("cpu", torch.bfloat16):
        with RecordForward() as recording:
            step.outputs(net, x)
        plain = forward_tangents(step, direction, nullcontext())
        fused = forward_tangents(step, direction, recording.rules())
    for name in exact:
        size = exact[name].norm()
        assert fused[name].dtype == torch.bfloat16
        assert (
            (fused[name].float() - exact[name]).norm() <= 1.3 * (plain[name].float() - exact[name]).norm() < 0.1 * size
        )


def test_large_mean_stays_accurate():
    """Batch norm of values far from zero: the tangent as the derivative of the normalised value."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 4, 4, dtype=torch.float64) * 0.01 + 100
    dx = torch.randn_like(x)
    norm = nn.BatchNorm2d(3).double()
    with torch.no_grad(), torch.autograd.forward_ad.dual_level(), FusedTangents():
        tangent = tangent_of(norm(dual(x, dx)))
    width = 1e-5
    expected = (norm(x + width * dx) - norm(x - width * dx)) / (2 * width)
    assert (tangent - expected).norm() <= 1e-5 * expected.norm()


def test_recording_copies_nothing():
    conv = nn.Conv2d(2, 3, 3)
    with RecordForward() as recording:
        out = conv(torch.randn(1, 2, 5, 5))
    ((recorded, _),) = recording._convolutions
    assert recorded.data_ptr() == out.data_ptr()
    assert not recorded.requires_grad


class Count(TorchFunctionMode):
    convolutions = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.convolutions += func is torch.conv2d
        return func(*args, **(kwargs or {}))


def test_recorded_convolutions_are_not_computed_again():
    torch.manual_seed(0)
    step, direction, recording, _ = step_for(Net(), torch.randn(5, 2, 6, 6))
    with Count() as count:
        forward_tangents(step, direction, recording.rules())
    # two forwards of seven convolutions: dW * x and W * dx, but for the first of the network, whose input stands still
    assert count.convolutions == 2 * (2 * 7 - 1)


def test_recorded_batch_statistics_are_not_computed_again(monkeypatch):
    torch.manual_seed(0)
    net = Net()
    step, direction, recording, _ = step_for(net, torch.randn(5, 2, 6, 6))
    training = []
    normalise = torch.native_batch_norm
    monkeypatch.setattr(torch, "native_batch_norm", lambda *args: (training.append(args[5]), normalise(*args))[1])
    forward_tangents(step, direction, recording.rules())
    assert training
    assert not any(training)
    training.clear()
    forward_tangents(step, direction, FusedTangents())
    assert any(training)
