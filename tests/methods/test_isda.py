"""ISDA."""

import copy

import pytest
import torch
import torch.nn.functional as F
from testkit.covariances import Statistics, quadratic
from testkit.meta import CLASSES, WithFeatures, arrays, batches, fit, sgd
from torch import nn

from lightning_perturb.core import Batch, MetaPerturbationModule, PerturbationModule
from lightning_perturb.methods import ISDA


def make(method=ISDA, net=None, **options):
    torch.manual_seed(0)
    return method(net or WithFeatures(), CLASSES, **{"optimizer": sgd, **options}).double()


def diagonal(sigma):
    return torch.diag_embed(sigma.diagonal(dim1=1, dim2=2))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_training_is_that_of_a_loop_by_hand(covariance):
    module = make(covariance=covariance, lam=0.8)
    net, seen = copy.deepcopy(module.net), []

    class Peek(ISDA):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch.x, batch.y))
            return super().training_step(batch, batch_idx)

    module.__class__ = Peek
    fit(module, max_epochs=4)
    optimizer, statistics = sgd(net.parameters()), Statistics(5)
    for epoch, x, y in seen:
        logits, features = net(x)
        statistics.add(features, y)
        sigma = statistics.covariance()
        raised = quadratic(net.head.weight, sigma if covariance == "full" else diagonal(sigma), y)
        loss = F.cross_entropy(logits + 0.8 * epoch / 4 * raised, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-9, atol=1e-11)


def test_limits():
    train, _ = batches()
    module = make(ramp="constant", lam=0.0)
    outputs = module.outputs(module.net, train)
    torch.testing.assert_close(module.loss(outputs, train), F.cross_entropy(outputs["logits"], train.y))
    # one sample of each class: no class varies
    module = make(ramp="constant", lam=5.0)
    single = Batch(train.x[:CLASSES], torch.arange(CLASSES))
    outputs = module.outputs(module.net, single)
    torch.testing.assert_close(module.loss(outputs, single), F.cross_entropy(outputs["logits"], single.y))
    with pytest.raises(ValueError, match="lam=-1"):
        make(lam=-1)


class Doubled(PerturbationModule):
    """Another method of the logits, in the place of LPL."""

    def __init__(self, *args, factor=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.factor = factor

    def perturb_logits(self, logits, outputs, batch):
        return self.factor * super().perturb_logits(logits, outputs, batch)


class DoubledISDA(Doubled, ISDA):
    """Both, without a constructor."""


def test_it_cooperates():
    train, _ = batches()
    module = make(DoubledISDA, factor=3.0, lam=0.7, ramp="constant")
    outputs = module.outputs(module.net, train)
    statistics = Statistics(5)
    statistics.add(outputs["features"], train.y)
    raised = 0.7 * quadratic(outputs["weight"], statistics.covariance(), train.y)
    expected = F.cross_entropy(3.0 * (outputs["logits"] + raised), train.y)
    torch.testing.assert_close(module.loss(outputs, train), expected)
    fit(module)


class MetaISDA(MetaPerturbationModule, ISDA):
    """Its strength learned on clean samples."""


def test_its_strength_can_be_learned():
    def module(engine):
        return make(MetaISDA, ramp="constant", meta_parameters={"lam": (0.0, 5.0)}, engine=engine)

    train, meta = batches()
    (fast,), (slow,) = (module(e).hypergradient(train, meta, 0.5).gradients for e in ("forward", "higher"))
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=0)
    learned = module("auto")
    fit(learned)
    assert learned.lam != 0.5


def test_validation_builds_no_graph_and_moves_no_statistics():
    flags = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = WithFeatures()

        def forward(self, x):
            logits, features = self.inner(x)
            if not self.training:
                flags.append(logits.requires_grad)
            return logits, features

    module = make(net=Look())
    fit(module, arrays(val_size=8))
    assert flags
    assert not any(flags)
    assert int(module.feature_count.sum()) == 44
