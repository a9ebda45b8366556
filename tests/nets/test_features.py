"""The feature / classifier split."""

import higher
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from lightning_perturb import nets
from lightning_perturb.nets import find_classifier, record_features

NETS = {
    "cifar": lambda: nets.ResNet20(num_classes=5),
    "resnet": lambda: nets.ResNet18(num_classes=5),
    "preact": lambda: nets.PreActResNet18(num_classes=5),
    "wide": lambda: nets.WideResNet(10, 2, num_classes=5, dropout=0.3),
    "convnet": lambda: nets.ConvNet(num_classes=5),
    "mlp": lambda: nets.MLP(num_classes=5, in_features=3 * 32 * 32, hidden=(16,), dropout=0.5),
    "linear": lambda: nets.MLP(num_classes=5, in_features=3 * 32 * 32, hidden=()),
    "torchvision": lambda: nets.TorchvisionNet("mobilenet_v3_small", num_classes=5),
    "googlenet": lambda: nets.TorchvisionNet("googlenet", num_classes=5),
}


class KeywordHead(nn.Module):
    """Calls its classifier by keyword, and registers another layer after it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3, bias=False)
        self.side = nn.Linear(4, 2)

    def forward(self, x, fail=False):
        if fail:
            raise KeyError("forward")
        return self.head(input=x.tanh())


@pytest.fixture
def net():
    return nets.MLP(num_classes=5, in_features=4, hidden=(6,))


def hooks(net):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules())


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
@pytest.mark.parametrize("training", [False, True])
def test_recorded_features_give_the_logits(build, training):
    net = build().train(training)
    name, classifier = find_classifier(net)
    x = torch.randn(2, 3, 32, 32)
    with record_features(net) as recorded:
        logits = net(x)
    assert recorded.name == name
    assert recorded.features.shape == (2, classifier.in_features)
    torch.testing.assert_close(recorded.features @ classifier.weight.T + classifier.bias, logits)
    assert recorded.weight is classifier.weight
    assert recorded.bias is classifier.bias
    assert hooks(net) == 0


def test_finds_the_layer_registered_last_or_by_name(net):
    assert find_classifier(net) == ("classifier", net.classifier)
    assert find_classifier(net, "backbone.0") == ("backbone.0", net.backbone[0])
    assert find_classifier(KeywordHead())[0] == "side"
    linear = nn.Linear(2, 2)
    assert find_classifier(linear) == ("", linear)


def test_unknown_or_missing_classifiers_are_refused(net):
    with pytest.raises(ValueError, match=r"name='fc' is no nn.Linear of MLP. Choose one of: backbone.0, classifier"):
        find_classifier(net, "fc")
    with pytest.raises(ValueError, match=r"name='backbone' is no nn.Linear"), record_features(net, "backbone"):
        pass
    with pytest.raises(ValueError, match=r"SqueezeNet has no nn\.Linear"):
        find_classifier(nets.TorchvisionNet("squeezenet1_1", num_classes=5).model)


def test_keyword_input_name_and_no_bias():
    net = KeywordHead()
    x = torch.randn(2, 4)
    with record_features(net, "head") as recorded:
        net(x)
    torch.testing.assert_close(recorded.features, x.tanh())
    assert recorded.bias is None


def test_reading_before_a_forward_or_of_an_unused_layer_is_an_error(net):
    with record_features(net) as recorded, pytest.raises(RuntimeError, match="'classifier' was not called"):
        recorded.features
    unused = KeywordHead()
    with record_features(unused, "side") as recorded:
        unused(torch.randn(2, 4))
    for field in ("features", "weight", "bias"):
        with pytest.raises(RuntimeError, match="'side' was not called"):
            getattr(recorded, field)


def test_hook_is_removed_after_an_error():
    net = KeywordHead()
    with pytest.raises(KeyError, match="forward"), record_features(net, "head"):
        net(torch.randn(2, 4), fail=True)
    assert hooks(net) == 0


def test_ended_recording_no_longer_changes(net):
    first, second = torch.randn(2, 4), torch.randn(3, 4)
    with record_features(net) as recorded:
        net(first)
    before = recorded.features
    net(second)
    assert recorded.features is before


def test_latest_forward_counts(net):
    with record_features(net) as recorded:
        net(torch.randn(2, 4))
        net(torch.randn(3, 4))
    assert len(recorded.features) == 3


def test_nested_recordings_do_not_disturb_each_other(net):
    with record_features(net) as outer:
        net(torch.randn(2, 4))
        with record_features(net) as inner, record_features(net, "backbone.0") as lower:
            net(torch.randn(3, 4))
        assert inner.features is outer.features
        assert lower.features.shape == (3, 4)
        net(torch.randn(4, 4))
    assert len(outer.features) == 4
    assert len(inner.features) == 3
    assert hooks(net) == 0


def test_features_carry_the_gradient(net):
    x = torch.randn(2, 4, requires_grad=True)
    with record_features(net) as recorded:
        net(x)
    recorded.features.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert net.classifier.weight.grad is None
    (recorded.weight.square().sum()).backward()
    torch.testing.assert_close(net.classifier.weight.grad, 2 * net.classifier.weight)


def test_inside_functional_call_the_passed_parameters_are_recorded(net):
    original = net.classifier.weight
    other = {name: (2 * value.detach() + 1).requires_grad_() for name, value in net.named_parameters()}
    x = torch.randn(2, 4)
    with record_features(net) as recorded:
        logits = torch.func.functional_call(net, other, (x,))
    assert recorded.weight is other["classifier.weight"]
    assert recorded.bias is other["classifier.bias"]
    assert net.classifier.weight is original
    torch.testing.assert_close(recorded.features @ other["classifier.weight"].T + other["classifier.bias"], logits)
    expected = torch.relu(x @ other["backbone.0.weight"].T + other["backbone.0.bias"])
    torch.testing.assert_close(recorded.features, expected)


def test_forward_mode_tangents_are_recorded(net):
    net = net.double()
    x = torch.randn(2, 4, dtype=torch.float64)
    values = {name: value.detach() for name, value in net.named_parameters()}
    tangents = {name: torch.randn_like(value) for name, value in values.items()}

    def features(step):
        moved = {name: value + step * tangents[name] for name, value in values.items()}
        with record_features(net) as recorded:
            torch.func.functional_call(net, moved, (x,))
        return recorded.features

    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(value, tangents[name]) for name, value in values.items()}
        with record_features(net) as recorded:
            torch.func.functional_call(net, duals, (x,))
        tangent = forward_ad.unpack_dual(recorded.features).tangent
        weight_tangent = forward_ad.unpack_dual(recorded.weight).tangent
    torch.testing.assert_close(tangent, (features(1e-6) - features(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(weight_tangent, tangents["classifier.weight"])


def test_networks_patched_by_higher_are_recorded_with_their_fast_weights(net):
    x = torch.randn(3, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    with higher.innerloop_ctx(net, optimizer) as (patched, inner):
        inner.step(nn.functional.cross_entropy(patched(x), torch.arange(3)))
        with record_features(patched) as recorded:
            logits = patched(x)
    assert not torch.equal(recorded.weight, net.classifier.weight)
    torch.testing.assert_close(recorded.features @ recorded.weight.T + recorded.bias, logits)
