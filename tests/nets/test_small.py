"""The multilayer perceptron."""

import pytest
import torch
from torch import nn

from lightning_perturb.nets import MLP


def test_no_hidden_layer_is_a_linear_classifier():
    net = MLP(num_classes=3, in_features=12, hidden=())
    x = torch.randn(5, 3, 2, 2)
    assert len(list(net.parameters())) == 2
    torch.testing.assert_close(net(x), x.reshape(5, 12) @ net.classifier.weight.T + net.classifier.bias)


def test_layers_written_out():
    net = MLP(num_classes=3, in_features=8, hidden=(6, 5), dropout=0.5).eval()
    first, second, last = (layer for layer in net.modules() if isinstance(layer, nn.Linear))
    x = torch.randn(4, 8)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(net(x), hidden @ last.weight.T + last.bias)


def test_norm_standardises_before_the_relu():
    net = MLP(num_classes=3, in_features=8, hidden=(6,), norm=True)
    x = torch.randn(16, 8)
    hidden = x @ next(net.parameters()).T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    expected = hidden.clamp(min=0) @ net.classifier.weight.T + net.classifier.bias
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_gradient_reaches_every_parameter(norm):
    net = MLP(num_classes=3, in_features=8, hidden=(16, 16), norm=norm)
    nn.functional.cross_entropy(net(torch.randn(8, 2, 2, 2)), torch.arange(8) % 3).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_one_sample_and_memory_format_do_not_matter():
    net = MLP(num_classes=3, in_features=48, norm=True).eval()
    x = torch.randn(4, 3, 4, 4)
    torch.testing.assert_close(net(x[:1]), net(x)[:1])
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), net(x))


def test_dropout_acts_in_training_only():
    net = MLP(num_classes=3, in_features=8, dropout=0.5)
    x = torch.randn(4, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)


def test_other_samples_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"in_features=64 does not fit samples of shape \(3, 8, 8\).*in_features=192"):
        MLP(num_classes=3, in_features=64)(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    "bad",
    [{"num_classes": 0}, {"in_features": 0}, {"hidden": (8, 0)}, {"dropout": -0.1}, {"dropout": 1.1}],
    ids=str,
)
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MLP(**{"num_classes": 3, "in_features": 8, **bad})
