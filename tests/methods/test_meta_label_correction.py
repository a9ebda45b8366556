"""Meta label correction."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, WithFeatures, arrays, batches, fit, sgd
from torch.func import functional_call

from lightning_perturb.methods import MLC
from lightning_perturb.methods.meta_label_correction import correction_optimizer
from lightning_perturb.nets import LabelCorrectionNet


def make(**options):
    torch.manual_seed(0)
    defaults = {"optimizer": sgd, "embedding": 3, "hidden": 5}
    return MLC(WithFeatures(), CLASSES, **{**defaults, **options}).double()


def corrected(net, features, y):
    """The network, layer by layer."""
    first, _, second, _, last = net.layers
    hidden = torch.tanh(first(torch.cat([features, net.embedding.weight[y]], 1)))
    return last(torch.tanh(second(hidden))).softmax(1)


def soft(logits, target):
    return -(target * logits.log_softmax(1)).sum(1)


class Watch(Callback):
    """The loss of each step by hand, from the weights that it was made of."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        # the correction network has made its step, the classifier not yet
        self.state = {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        twin = make()
        twin.load_state_dict(self.state)
        train, meta = batch["train"], batch["meta"]
        logits, features = twin.net(train.x)
        target = corrected(twin.correction_net, features, train.y)
        clean = F.cross_entropy(twin.net(meta.x[1::2])[0], meta.y[1::2], reduction="sum")
        expected = (soft(logits, target).sum() + clean) / (len(train) + len(meta.y[1::2]))
        self.steps.append((float(outputs["loss"]), float(expected)))
        torch.testing.assert_close(outputs["hyperparameter/kept"], target.gather(1, train.y[:, None])[:, 0].detach())


def test_a_whole_training():
    watch, module = Watch(), make()
    before = [p.clone() for p in module.correction_net.parameters()]
    fit(module, callbacks=[watch], max_epochs=2)
    assert len(watch.steps) == 14
    for loss, expected in watch.steps:
        assert loss == pytest.approx(expected)
    assert all(
        not torch.equal(one, other) for one, other in zip(before, module.correction_net.parameters(), strict=True)
    )


@pytest.mark.parametrize("on_clean", [True, False])
@pytest.mark.parametrize("momentum", [True, False])
def test_the_hypergradient_by_two_backward_passes(on_clean, momentum):
    module, (train, meta) = make(train_on_clean=on_clean, look_ahead_momentum=momentum), batches(size=6)
    optimizer = sgd(module.trained_parameters())
    F.cross_entropy(module.net(train.x)[0], train.y).backward()
    optimizer.step()
    module._trainer, steps = None, {"train": train, "meta": meta}
    own, measured = module._streams(steps, 0)
    found = module.hypergradient(own, measured, optimizer)

    names, values = zip(*module.net.named_parameters(), strict=True)
    logits, features = functional_call(module.net, dict(zip(names, values, strict=True)), (train.x,))
    loss = soft(logits, corrected(module.correction_net, features.detach(), train.y)).sum()
    count = 6
    if on_clean:
        loss, count = loss + F.cross_entropy(module.net(meta.x[1::2])[0], meta.y[1::2], reduction="sum"), 9
        meta = meta.rows(slice(0, None, 2))
    slopes = torch.autograd.grad(loss / count, values, create_graph=True)
    ahead = {}
    for name, value, slope in zip(names, values, slopes, strict=True):
        step = 0.9 * optimizer.state[value]["momentum_buffer"] + slope + 1e-3 * value if momentum else slope
        ahead[name] = value - 0.2 * step
    outer = F.cross_entropy(functional_call(module.net, ahead, (meta.x,))[0], meta.y)
    for one, other in zip(found.gradients, torch.autograd.grad(outer, module.theta()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)
    assert sum(g.norm() for g in found.gradients) > 0


def test_the_published_settings_are_the_defaults():
    torch.manual_seed(0)
    module = MLC(WithFeatures(), CLASSES)
    net = module.correction_net
    assert net.embedding.weight.shape == (CLASSES, 128)
    assert [layer.weight.shape for layer in net.layers[::2]] == [(128, 133), (128, 128), (CLASSES, 128)]
    assert all(not layer.bias.any() for layer in net.layers[::2])
    assert float(net.layers[2].weight.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    group = correction_optimizer(module.theta()).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (3e-4, 0, True)


def test_a_clean_sample_that_is_alone_measures():
    fit(make(), arrays(meta_batch_size=1))


def test_faults_are_named():
    with pytest.raises(ValueError, match="hidden=0"):
        make(hidden=0)
    with pytest.raises(ValueError, match="embedding=0"):
        LabelCorrectionNet(3, 4, embedding=0)
