"""What every network of the package promises."""

import inspect
import re

import jsonargparse
import pytest
import torch
from torch import nn

from lightning_perturb import nets

COUNTS = {
    nets.ResNet20: 269_722,
    nets.ResNet32: 464_154,
    nets.ResNet44: 658_586,
    nets.ResNet56: 853_018,
    nets.ResNet110: 1_727_962,
    nets.SEResNet110: 1_740_058,
    nets.ResNet18: 11_173_962,
    nets.ResNet34: 21_282_122,
    nets.PreActResNet18: 11_172_170,
    nets.WRN28_10: 36_479_194,
    nets.WRN16_8: 10_961_370,
}
IMAGE_NETS = [*COUNTS, nets.ConvNet]

# small members of every family, to be run for real
SMALL = {
    "cifar": lambda **kw: nets.CifarResNet(8, **kw),
    "se": lambda **kw: nets.CifarSEResNet(8, reduction=2, **kw),
    "resnet": lambda **kw: nets.ResNet((1, 1, 1, 1), **kw),
    "preact": nets.PreActResNet18,
    "wide": lambda **kw: nets.WideResNet(10, 2, dropout=0.2, **kw),
    "convnet": nets.ConvNet,
}
CLASSES = [getattr(nets, name) for name in nets.__all__ if inspect.isclass(getattr(nets, name))]
NETWORKS = [cls for cls in CLASSES if issubclass(cls, nn.Module)]


@pytest.fixture(params=SMALL, ids=str)
def small(request):
    return SMALL[request.param]


@pytest.mark.parametrize("network", COUNTS, ids=lambda network: network.__name__)
def test_parameter_count_is_the_published_one(network):
    with torch.device("meta"):
        net = network(num_classes=10)
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS[network]


def test_parameters_of_the_lpl_papers_networks():
    # millions, as printed in its Table VIII
    printed = {nets.ResNet32: 0.5, nets.SEResNet110: 1.7, nets.WRN16_8: 11.0}
    for network, millions in printed.items():
        for classes in (10, 100):
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in network(num_classes=classes).parameters())
            assert round(count / 1e6, 1) == millions, (network, classes)


@pytest.mark.parametrize("network", IMAGE_NETS, ids=lambda network: network.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_of_the_largest_image(network, channels):
    with torch.device("meta"):
        net = network(num_classes=7, in_channels=channels).eval()
        assert net(torch.empty(2, channels, 33, 33)).shape == (2, 7)


@pytest.mark.parametrize("size", [8, 28, 32, 33])
@pytest.mark.parametrize("training", [False, True])
def test_shapes_of_any_image(small, size, training):
    net = small(num_classes=7, in_channels=1).train(training)
    assert net(torch.randn(2, 1, size, size)).shape == (2, 7)


@pytest.mark.parametrize("network", IMAGE_NETS, ids=lambda network: network.__name__)
def test_last_layer_is_linear(network):
    with torch.device("meta"):
        net = network(num_classes=7)
    last = [module for module in net.modules() if not list(module.children())][-1]
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7


@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_sample_in_eval(small, size, channels):
    net = small(num_classes=5, in_channels=channels).eval()
    x = torch.randn(3, channels, size, size)
    alone, together = net(x[:1]), net(x)
    assert alone.isfinite().all()
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter(small):
    net = small(num_classes=5)
    nn.functional.cross_entropy(net(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("training", [False, True])
def test_channels_last_gives_the_same_logits(small, training):
    net = small(num_classes=5).double()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    net.train(training)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = net(x)
    # one to eight channels or pixels of one image are ambiguous in their layout: only real images count
    layouts = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 3:
            module.register_forward_pre_hook(
                lambda _, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
            )
    actual = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert layouts
    assert all(layouts)


def test_bfloat16_autocast_is_finite(small):
    net = small(num_classes=5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.randn(4, 3, 16, 16) * 100)
    assert logits.isfinite().all()


def test_convolutions_start_kaiming(small):
    torch.manual_seed(0)
    for name, module in small(num_classes=5).named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            spread = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert module.weight.std().item() == pytest.approx(spread, rel=0.1), name


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_num_classes_is_required_and_every_argument_documented(network):
    if issubclass(network, nets.MetaMLP):
        pytest.skip("a network of meta parameters has no classes")
    parameters = inspect.signature(network).parameters
    assert parameters["num_classes"].default is inspect.Parameter.empty
    args = network.__doc__.split("Args:")[1]
    documented = re.findall(r"^ {8}(\w+): \S", args, flags=re.MULTILINE)
    assert documented[: len(parameters)] == list(parameters)


@pytest.mark.parametrize("network", [*IMAGE_NETS, nets.ConvNet], ids=lambda network: network.__name__)
@pytest.mark.parametrize("bad", [{"num_classes": 0}, {"num_classes": 10, "in_channels": 0}])
def test_empty_outputs_and_inputs_are_refused(network, bad):
    with torch.device("meta"), pytest.raises(ValueError, match=list(bad)[-1]):
        network(**bad)


@pytest.mark.parametrize("depth", [2, 21, 0, -4])
def test_impossible_depths_are_refused(depth):
    with pytest.raises(ValueError, match=rf"depth={depth} is not 6n \+ 2"):
        nets.CifarResNet(depth, num_classes=10)
    with pytest.raises(ValueError, match=rf"depth={depth} is not 6n \+ 2"):
        nets.CifarSEResNet(depth, num_classes=10)
    with pytest.raises(ValueError, match=rf"depth={depth} is not 6n \+ 4"):
        nets.WideResNet(depth, 1, num_classes=10)


def test_impossible_widths_blocks_and_rates_are_refused():
    with pytest.raises(ValueError, match="widen_factor=0"):
        nets.WideResNet(10, 0, num_classes=10)
    for make in (lambda **kw: nets.WideResNet(10, 1, **kw), nets.ResNet20, nets.SEResNet110):
        with pytest.raises(ValueError, match=r"dropout=1\.5"):
            make(num_classes=10, dropout=1.5)
    with pytest.raises(ValueError, match=r"blocks=\(2, 2, 0, 2\)"):
        nets.ResNet((2, 2, 0, 2), num_classes=10)
    with pytest.raises(ValueError, match="width=0"):
        nets.ConvNet(num_classes=10, width=0)
    with pytest.raises(ValueError, match="reduction=0"):
        nets.CifarSEResNet(8, num_classes=10, reduction=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_command_line_builds_networks_by_class_and_arguments():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    args = ["--net=lightning_perturb.nets.MLP", "--net.num_classes=3", "--net.in_features=8", "--net.hidden=[6, 5]"]
    net = parser.instantiate_classes(parser.parse_args(args)).net
    assert isinstance(net, nets.MLP)
    assert [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)] == [6, 5, 3]
    with pytest.raises(jsonargparse.ArgumentError, match="num_clases"):
        parser.parse_args(["--net=lightning_perturb.nets.ResNet20", "--net.num_clases=3"])
