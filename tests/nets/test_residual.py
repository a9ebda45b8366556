"""The residual networks against forwards written out from their state dicts, and against torchvision's."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lightning_perturb import nets
from lightning_perturb.nets._blocks import PadShortcut


@pytest.mark.parametrize(("channels", "out", "stride"), [(16, 32, 2), (3, 6, 2), (4, 7, 3), (5, 5, 2), (2, 4, 1)])
@pytest.mark.parametrize("size", [(8, 8), (33, 33), (7, 10), (1, 1)])
def test_option_a_is_a_convolution_with_a_selection_matrix(channels, out, stride, size):
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    offset = (out - channels) // 2
    selection = torch.zeros(out, channels, 1, 1, dtype=torch.float64)
    for channel in range(channels):
        selection[offset + channel, channel] = 1
    expected = F.conv2d(x, selection, stride=stride)
    actual = PadShortcut(channels, out, stride)(x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    cotangent = torch.randn_like(expected)
    (left,) = torch.autograd.grad(expected, x, cotangent)
    (right,) = torch.autograd.grad(actual, x, cotangent)
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_option_a_has_no_parameters_and_keeps_channels_last():
    shortcut = PadShortcut(16, 32, 2)
    assert not list(shortcut.parameters())
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    assert shortcut(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (1, 2, 1, 2)])
@pytest.mark.parametrize("training", [False, True])
def test_resnet_equals_torchvision_without_its_large_stem(blocks, training):
    reference = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, list(blocks), num_classes=6)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    net = nets.ResNet(blocks, num_classes=6)
    randomize(reference)
    copy_in_order(reference, net)
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(net.train(training)(x), reference.train(training)(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [8, 14])
def test_cifar_resnet_written_out(depth):
    net = nets.CifarResNet(depth, num_classes=4).double().eval()
    randomize(net)
    tensors = list(net.state_dict().values())
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)

    def take(count):
        taken, tensors[:] = tensors[:count], tensors[count:]
        return taken

    def conv_norm(x, stride):
        weight, scale, shift, mean, var, _ = take(6)
        x = F.conv2d(x, weight, stride=stride, padding=1)
        return F.batch_norm(x, mean, var, scale, shift)

    hidden = conv_norm(x, 1).relu()
    for stage in range(3):
        for block in range((depth - 2) // 6):
            shrink = stage > 0 and block == 0
            inner = conv_norm(conv_norm(hidden, 2 if shrink else 1).relu(), 1)
            if shrink:
                hidden = hidden[..., ::2, ::2]
                zeros = torch.zeros_like(hidden[:, : hidden.shape[1] // 2])
                hidden = torch.cat([zeros, hidden, zeros], dim=1)
            hidden = (inner + hidden).relu()
    weight, bias = take(2)
    assert not tensors
    torch.testing.assert_close(net(x), F.adaptive_avg_pool2d(hidden, 1).flatten(1) @ weight.T + bias)


@pytest.mark.parametrize("reduction", [2, 64])
def test_squeeze_and_excitation_written_out(reduction):
    plain, net = nets.CifarResNet(14, num_classes=4), nets.CifarSEResNet(14, num_classes=4, reduction=reduction)
    net = net.double().eval()
    randomize(net)
    state = net.state_dict()
    plain = plain.double().eval()
    plain.load_state_dict({name: value for name, value in state.items() if "excitation" not in name})
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    hidden = plain.backbone.stem(x)
    for stage in ("stage1", "stage2", "stage3"):
        for number, block in enumerate(getattr(plain.backbone, stage)):
            inner = block.norm2(block.conv2(block.norm1(block.conv1(hidden)).relu()))
            prefix = f"backbone.{stage}.{number}.excitation"
            squeeze, excite = (state[f"{prefix}.{part}.weight"] for part in ("squeeze", "excite"))
            assert len(squeeze) == max(inner.shape[1] // reduction, 1)
            means = inner.flatten(2).mean(2)
            gates = 1 / (1 + torch.exp(-((means @ squeeze.T).clamp(min=0) @ excite.T)))
            hidden = (inner * gates[:, :, None, None] + block.shortcut(hidden)).relu()
    expected = hidden.flatten(2).mean(2) @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(net(x), expected)
    assert not torch.allclose(plain(x), expected)


@pytest.mark.parametrize(
    ("build", "depths"),
    [
        (lambda: nets.WideResNet(10, 2, num_classes=4), (1, 1, 1)),
        (lambda: nets.WideResNet(16, 1, num_classes=4, dropout=0.5), (2, 2, 2)),
        (lambda: nets.PreActResNet18(num_classes=4), (2, 2, 2, 2)),
    ],
    ids=["WRN-10-2", "WRN-16-1", "PreActResNet18"],
)
def test_pre_activation_networks_written_out(build, depths):
    net = build().double().eval()
    randomize(net)
    state = net.state_dict()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)

    def norm_relu(x, prefix):
        mean, var, scale, shift = (
            state[f"{prefix}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    hidden = F.conv2d(x, state["backbone.stem.weight"], padding=1)
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"backbone.stage{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            active = norm_relu(hidden, f"{prefix}.norm1")
            inner = F.conv2d(active, state[f"{prefix}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(norm_relu(inner, f"{prefix}.norm2"), state[f"{prefix}.conv2.weight"], padding=1)
            if f"{prefix}.projection.weight" in state:
                assert block == 0
                hidden = F.conv2d(active, state[f"{prefix}.projection.weight"], stride=stride)
            hidden = hidden + inner
    pooled = norm_relu(hidden, "backbone.norm").flatten(2).mean(2)
    expected = pooled @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("family", ["wide", "cifar", "se"])
def test_dropout_acts_in_training_only(family):
    make = {
        "wide": lambda **kw: nets.WideResNet(10, 1, **kw),
        "cifar": lambda **kw: nets.CifarResNet(8, **kw),
        "se": lambda **kw: nets.CifarSEResNet(8, **kw),
    }[family]
    net = make(num_classes=4, dropout=0.5)
    assert list(net.state_dict()) == list(make(num_classes=4).state_dict())
    x = torch.randn(4, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)


def randomize(net):
    """Gives batch norm weights and statistics that do not hide a swapped or skipped layer."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)


def copy_in_order(source, target):
    values, keys = source.state_dict().values(), target.state_dict().keys()
    target.load_state_dict(dict(zip(keys, values, strict=True)))
