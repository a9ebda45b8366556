"""Deep features and the classifier of any network, inside a method."""

import pytest
import torch
from testkit.meta import CLASSES, FEATURES, batches, fit, mlp, sgd
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call

from lightning_perturb import nets
from lightning_perturb.core import Batch, MetaPerturbationModule
from lightning_perturb.core.features import FeatureModule


class Squared(FeatureModule):
    """Reads the features and the weight with their gradients."""

    def __init__(self, *args, strength=0.1, **kwargs):
        super().__init__(*args, **kwargs)
        self.strength = strength

    def perturb_loss(self, loss, logits, batch):
        return loss

    def loss(self, outputs, batch):
        found = outputs["features"].square().mean() + outputs["weight"].square().sum()
        return super().loss(outputs, batch) + self.strength * found


class MetaSquared(MetaPerturbationModule, Squared):
    """The same with a learned strength: weight and features are outputs of the bilevel problem."""


class SideHead(nn.Module):
    """Its last registered layer is not its classifier."""

    def __init__(self, width=2):
        super().__init__()
        self.body = nn.Linear(FEATURES, 5)
        self.fc = nn.Linear(5, CLASSES)
        self.side = nn.Linear(5, width)

    def forward(self, x):
        features = self.body(x).tanh()
        return self.fc(features), self.side(features)


class Scaled(nn.Module):
    """Something follows its last layer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return 3 * self.fc(x)


class Pooled(nn.Module):
    """Classifies every token, then pools."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.fc(x.unflatten(1, (2, 3))).mean(1)


def make(net=None, cls=Squared, **options):
    torch.manual_seed(0)
    return cls(net or mlp(), CLASSES, optimizer=sgd, **options).double()


@pytest.mark.parametrize("norm", [False, True])
def test_outputs_have_features_and_weight(norm):
    module = make(mlp(norm))
    train, _ = batches()
    outputs = module.outputs(module.net, train)
    assert outputs["weight"] is module.net[-1].weight
    torch.testing.assert_close(outputs["features"] @ outputs["weight"].T + module.net[-1].bias, outputs["logits"])
    assert outputs["features"].requires_grad
    assert not module.net[-1]._forward_hooks


def test_inside_functional_call_they_are_those_that_were_passed():
    module = make()
    train, _ = batches()
    module.outputs(module.net, train)
    values = {name: (2 * p.detach()).requires_grad_() for name, p in module.net.named_parameters()}
    outputs = module.outputs(lambda x: functional_call(module.net, values, (x,)), train)
    assert outputs["weight"] is values["3.weight"]
    direction = {name: torch.randn_like(p) for name, p in values.items()}
    with forward_ad.dual_level(), torch.no_grad():
        dual = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in values.items()}
        moved = module.outputs(lambda x: functional_call(module.net, dual, (x,)), train)
        tangents = {name: forward_ad.unpack_dual(value).tangent for name, value in moved.items()}
    torch.testing.assert_close(tangents["weight"], direction["3.weight"])
    assert tangents["features"].norm() > 0


def test_through_the_bilevel_engine():
    module = make(cls=MetaSquared, meta_parameters={"strength": (0.0, 1.0)})
    train, meta = batches()
    fast = module.hypergradient(train, meta, 0.5).gradients
    slow = make(cls=MetaSquared, meta_parameters={"strength": (0.0, 1.0)}, engine="higher")
    for one, other in zip(fast, slow.hypergradient(train, meta, 0.5).gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)
        assert other.norm() > 0
    assert module._bilevels[module.net].engine == "auto", "the fast engine was given up"


def test_a_layer_can_be_named():
    train, _ = batches()
    module = make(SideHead(), classifier="fc")
    assert module.outputs(module.net, train)["weight"].shape == (CLASSES, 5)
    found = make(SideHead())
    with pytest.raises(ValueError, match=r"'side' .*gives 2 outputs.*num_classes=4.*by classifier"):
        found.outputs(found.net, train)
    # as wide as the classifier: only its outputs tell
    found = make(SideHead(CLASSES))
    with pytest.raises(ValueError, match=r"outputs of 'side' are not the network's logits"):
        found.outputs(found.net, train)


@pytest.mark.parametrize(
    ("net", "classifier", "text"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1)), None, r"Squared\(classifier=None\) .*Sequential has no nn\.Linear"),
        (SideHead(), "head", r"Squared\(classifier='head'\) .*Choose one of: body, fc, side"),
        (nn.LazyLinear(CLASSES), None, "width is unknown until the network has run once"),
    ],
)
def test_a_network_without_the_layer_is_refused_at_once(net, classifier, text):
    with pytest.raises(ValueError, match=text):
        Squared(net, CLASSES, classifier=classifier)


def test_a_network_whose_logits_are_not_the_layers_is_refused():
    train, _ = batches()
    module = make(Scaled())
    with pytest.raises(ValueError, match="let nothing follow it"):
        module.outputs(module.net, train)
    module = make(Pooled())
    with pytest.raises(ValueError, match=r"takes \(7, 2, 3\)"):
        module.outputs(module.net, train)


@pytest.mark.parametrize(
    "build", [lambda: nets.ResNet20(num_classes=5), lambda: nets.TorchvisionNet("mobilenet_v3_small", num_classes=5)]
)
def test_networks_of_the_package(build):
    module = Squared(build(), 5)
    outputs = module.outputs(module.net, Batch(torch.randn(2, 3, 32, 32), torch.tensor([0, 1])))
    assert outputs["features"].shape == (2, module.num_features)


def test_it_trains_in_half_precision():
    from testkit.meta import arrays

    data = arrays()
    data.setup("fit")
    data._train = (data._train[0].float(), data._train[1])
    torch.manual_seed(0)
    trainer = fit(Squared(mlp(), CLASSES, optimizer=sgd), data, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
