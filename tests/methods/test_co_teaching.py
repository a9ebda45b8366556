"""Co-teaching, JoCoR, and what two networks share."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from testkit.meta import CLASSES, arrays, batches, fit, mlp, sgd
from torch import nn

import lightning_perturb
from lightning_perturb.core.distributed import rank, world_size
from lightning_perturb.methods import CoTeaching, CrossEntropy, JoCoR
from lightning_perturb.nets import ResNet20

BOTH = pytest.mark.parametrize("cls", [CoTeaching, JoCoR])


def make(cls=CoTeaching, net=None, **options):
    torch.manual_seed(0)
    return cls(net or mlp(), CLASSES, optimizer=sgd, **options).double()


def by_hand(module, outputs, batch, rate):
    one, two = (F.cross_entropy(outputs[name], batch.y, reduction="none") for name in ("logits", "peer_logits"))
    count = max(int(rate * len(batch) + 1e-9), 1)
    if isinstance(module, CoTeaching):
        return one[two.argsort()[:count]].mean() + two[one.argsort()[:count]].mean()
    p, q = outputs["logits"].softmax(1), outputs["peer_logits"].softmax(1)
    apart = (p * (p / q).log() + q * (q / p).log()).sum(1)
    joint = 0.7 * (one + two) + 0.3 * apart
    return joint[joint.argsort()[:count]].mean()


class Watch(Callback):
    def __init__(self, rates):
        self.rates, self.steps = rates, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        outputs = module.outputs(module.net, batch)
        rate = self.rates[trainer.current_epoch]
        self.expected = by_hand(module, outputs, batch, rate) if rate else None
        if not rate:
            self.expected = sum(F.cross_entropy(u, batch.y) for u in outputs.values())

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.steps.append((float(outputs["loss"]), float(self.expected)))


@BOTH
def test_a_whole_training(cls):
    options = {"co_weight": 0.3} if cls is JoCoR else {}
    module = make(cls, forget_rate=0.5, gradual_epochs=2, warmup_epochs=1, **options)
    watch = Watch([None, 1.0, 0.75, 0.5])
    fit(module, arrays(meta_size=0), max_epochs=4, callbacks=[watch])
    assert len(watch.steps) == 32
    for loss, expected in watch.steps:
        assert loss == pytest.approx(expected)
    assert not torch.equal(module.net[0].weight, module.peer[0].weight)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_each_network_learns_from_its_own_losses_at_its_own_rate(clip):
    # the warm-up is two trainings side by side
    module, alone = make(warmup_epochs=2), CrossEntropy(mlp(), CLASSES, optimizer=sgd).double()
    alone.net.load_state_dict(module.peer.state_dict())
    fit(module, arrays(meta_size=0), max_epochs=2, gradient_clip_val=clip)
    fit(alone, arrays(meta_size=0), max_epochs=2, gradient_clip_val=clip)
    for one, other in zip(module.peer.parameters(), alone.net.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_the_other_network_fears_is_left_out():
    module, (train, _) = make(forget_rate=0.5, gradual_epochs=1), batches(size=6)
    module.phases = lambda: [(0, "main")]
    module.warmup_epochs = -1
    outputs = {name: torch.randn(6, CLASSES).double().requires_grad_() for name in ("logits", "peer_logits")}
    found = torch.autograd.grad(module.loss(outputs, train), list(outputs.values()))
    for gradient, other in zip(found, ("peer_logits", "logits"), strict=True):
        losses = F.cross_entropy(outputs[other], train.y, reduction="none")
        assert set(gradient.abs().sum(1).nonzero().flatten().tolist()) == set(losses.argsort()[:3].tolist())


# how the second network starts ------------------------------------------------------------------------------------


def test_the_peer_is_another_draw_of_the_same_initialisation():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    net = ResNet20(num_classes=10)
    after = torch.get_rng_state()
    module = CoTeaching(net, 10)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(state, after)
    for (name, one), other in zip(module.net.named_parameters(), module.peer.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values), name
        assert torch.equal(one, other) == (one.ndim < 2), name
        if one.ndim > 1 and one.numel() > 1000:
            assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.1
    torch.manual_seed(1)
    again = CoTeaching(ResNet20(num_classes=10), 10)
    assert all(torch.equal(a, b) for a, b in zip(module.peer.parameters(), again.peer.parameters(), strict=True))
    torch.manual_seed(2)
    other = CoTeaching(module.net, 10)
    assert not torch.equal(next(module.peer.parameters()), next(other.peer.parameters()))


def test_trained_features_and_frozen_layers_are_kept():
    net = mlp()
    module = make(net=net, second="classifier")
    assert torch.equal(module.peer[0].weight, net[0].weight)
    assert not torch.equal(module.peer[3].weight, net[3].weight)
    net[0].weight.requires_grad_(False)
    module = make(net=net)
    assert torch.equal(module.peer[0].weight, net[0].weight)
    assert not torch.equal(module.peer[3].weight, net[3].weight)


def test_networks_that_would_start_alike_are_refused():
    net = nn.Linear(6, CLASSES)
    nn.init.zeros_(net.weight)
    with pytest.raises(ValueError, match="Linear has no trained weights that differ"):
        make(net=net)


# evaluation -------------------------------------------------------------------------------------------------------


def test_who_predicts(tmp_path):
    x = batches(size=20)[0].x
    for evaluate in ("first", "mean"):
        module = make(evaluate=evaluate).eval()
        first, second = module.net(x).softmax(1), module.peer(x).softmax(1)
        expected = first if evaluate == "first" else (first + second) / 2
        torch.testing.assert_close(module.probabilities(module.evaluation_logits(x)), expected, rtol=1e-5, atol=1e-6)
    fit(module, arrays(meta_size=0))
    path = tmp_path / "two.ckpt"
    module.trainer.save_checkpoint(path)
    again = lightning_perturb.load(path, net=mlp()).double()
    assert again.evaluate == "mean"
    torch.testing.assert_close(again.evaluation_logits(x), module.eval().evaluation_logits(x))


# ranks ------------------------------------------------------------------------------------------------------------


def gradient_of_a_rank(cls) -> list:
    """As data-parallel training averages it; 7 samples in all, unevenly split."""
    train, _ = batches(size=7)
    mine = {1: slice(0, 7), 2: [slice(0, 5), slice(5, 7)][rank()]}[world_size()]
    module = make(cls, forget_rate=0.4, gradual_epochs=1)
    module.phases = lambda: [(0, "main")]
    module.warmup_epochs = -1
    train = train.rows(mine)
    loss = module.loss(module.outputs(module.net, train), train)
    found = torch.autograd.grad(loss, list(module.parameters()))
    if world_size() > 1:
        for gradient in found:
            torch.distributed.all_reduce(gradient)
    return [gradient / world_size() for gradient in found]


@BOTH
def test_the_samples_of_all_ranks_are_chosen_from_as_one_batch(cls, ranks):
    expected = gradient_of_a_rank(cls)
    for found in ranks(gradient_of_a_rank, cls):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"forget_rate": 1.0}, "forget_rate=1"),
        ({"gradual_epochs": 0}, "gradual_epochs=0"),
        ({"exponent": 0.0}, "exponent=0"),
        ({"second": "again"}, "second='again'"),
        ({"evaluate": "last"}, "evaluate='last'"),
        ({"cls": JoCoR, "co_weight": 1.5}, "co_weight=1.5"),
    ],
)
def test_faults_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)
