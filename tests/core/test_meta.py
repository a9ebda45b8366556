"""The base of meta-learned methods: what a step does."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from testkit.meta import (
    CLASSES,
    Each,
    adam,
    arrays,
    assert_hypergradient,
    batches,
    fit,
    reference,
    sgd,
    sharpened,
    weight_net,
)
from torch import nn

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, MetaWeightNet


class Watch(Callback):
    """What every batch was trained at, and on."""

    def __init__(self):
        self.rates, self.seen, self.losses = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"])
        assert not outputs["loss"].requires_grad
        assert outputs["logits"].shape == (len(batch["train"]), CLASSES)
        assert outputs["index"] is batch["train"].index


@pytest.mark.parametrize("norm", [False, True])
def test_steps_are_those_of_a_loop_by_hand(norm):
    module = weight_net(norm)
    net, meta_net = copy.deepcopy(module.net).double(), copy.deepcopy(module.meta_net).double()
    watch = Watch()
    trainer = fit(module, callbacks=[watch])
    assert trainer.global_step == len(watch.seen) == 7

    optimizer, meta_optimizer = sgd(net.parameters()), adam(meta_net.parameters())
    shadow = weight_net(norm).double()
    shadow.net, shadow.meta_net = net, meta_net
    shadow._trainer = None
    for batch, loss in zip(watch.seen, watch.losses, strict=True):
        train, meta = batch["train"], batch["meta"]
        # the reference runs on a copy of the network: statistics move in the real forward alone
        hand = by_hand(net, meta_net, train, meta, lr=0.2)
        for parameter, gradient in zip(meta_net.parameters(), hand, strict=True):
            parameter.grad = gradient
        meta_optimizer.step()
        losses = F.cross_entropy(net(train.x), train.y, reduction="none")
        real = (weights(meta_net, losses) * losses).mean()
        optimizer.zero_grad()
        real.backward(inputs=list(net.parameters()))
        optimizer.step()
        assert torch.allclose(loss, real, rtol=1e-11)
    for found, expected in ((module.net, net), (module.meta_net, meta_net)):
        for name, value in expected.state_dict().items():
            assert torch.allclose(found.state_dict()[name], value, rtol=1e-9, atol=1e-11), name


def weights(meta_net, losses):
    return torch.sigmoid(meta_net(losses.detach()[:, None]))[:, 0]


def by_hand(net, meta_net, train, meta, lr):
    """Meta gradient by plain double backward, with running statistics kept out."""
    parameters = dict(net.named_parameters())
    frozen = [{n: b.clone() for n, b in net.named_buffers()} for _ in range(2)]

    def call(values, x, buffers):
        return torch.func.functional_call(net, {**values, **buffers}, (x,))

    losses = F.cross_entropy(call(parameters, train.x, frozen[0]), train.y, reduction="none")
    inner = (weights(meta_net, losses) * losses).mean()
    slopes = torch.autograd.grad(inner, list(parameters.values()), create_graph=True)
    ahead = {name: p - lr * slope for (name, p), slope in zip(parameters.items(), slopes, strict=True)}
    return torch.autograd.grad(F.cross_entropy(call(ahead, meta.x, frozen[1]), meta.y), list(meta_net.parameters()))


def test_named_numbers_are_learned_and_kept_in_their_interval():
    module = sharpened().double()
    assert isinstance(module.strength, nn.Parameter)
    assert [p is module.strength for p in module.theta()] == [True]
    assert all(p is not module.strength for p in module.trained_parameters())
    assert_hypergradient(module)

    module = sharpened((0.9, 1.1), meta_optimizer=lambda p: torch.optim.SGD(p, lr=100.0))
    watch = []
    fit(module, callbacks=[Each(lambda m: watch.append(float(m.strength.detach())))])
    assert {round(value, 12) for value in watch} <= {0.9, 1.1}


def test_a_part_of_the_network_and_momentum_in_the_virtual_step():
    train, meta = batches()
    full = weight_net().double().hypergradient(train, meta, 0.5).gradients
    last = weight_net(look_ahead=["3"]).double().hypergradient(train, meta, 0.5).gradients
    assert not torch.allclose(full[0], last[0], rtol=1e-3)
    module = weight_net(look_ahead_momentum=True).double()
    with pytest.raises(ValueError, match="momentum=True needs the optimizer"):
        module.hypergradient(train, meta, 0.5)
    optimizer = torch.optim.SGD(module.net.parameters(), lr=0.5, momentum=0.9, nesterov=True)
    nesterov = module.hypergradient(train, meta, optimizer).gradients
    assert not torch.allclose(full[0], nesterov[0], rtol=1e-3)


@pytest.mark.parametrize(("every", "steps"), [(1, 14), (3, 6), (10, 2)])
def test_the_meta_step_counts_anew_in_every_epoch(every, steps):
    module, watch = weight_net(meta_every=every), Watch()
    trainer = fit(module, callbacks=[watch], max_epochs=2)
    assert trainer.global_step == 14
    states = trainer.optimizers[1].state
    assert {int(state["step"]) for state in states.values()} == {steps}
    # a meta batch is loaded where it is used, and nowhere else
    assert [batch["meta"] is None for batch in watch.seen] == [place % 7 % every != 0 for place in range(14)]


def test_warm_up_learns_no_meta_parameters():
    module = weight_net(warmup_epochs=1)
    before = copy.deepcopy(module.meta_net).double().state_dict()
    plain = CrossEntropy(copy.deepcopy(module.net), CLASSES, optimizer=sgd)
    trainer = fit(module)
    assert not trainer.optimizers[1].state
    for name, value in before.items():
        assert torch.equal(value, module.meta_net.state_dict()[name])
    fit(plain)
    for one, other in zip(plain.net.parameters(), module.net.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_warm_up_loads_no_meta_batch_and_a_method_that_wants_one_is_told():
    watch = Watch()
    fit(weight_net(warmup_epochs=1), callbacks=[watch], max_epochs=2)
    assert [batch["meta"] is None for batch in watch.seen] == [True] * 7 + [False] * 7

    class Early(MetaWeightNet):
        meta_learning = True

    with pytest.raises(
        ValueError, match=r"Early learns in epoch 0, batch 0, .* no meta batch: meta_from=1, meta_every=2"
    ):
        fit(weight_net(cls=Early, warmup_epochs=1, meta_every=2))


def test_statistics_of_batch_norm_move_once_a_batch():
    module = weight_net(norm=True)
    fit(module)
    assert int(module.net[1].num_batches_tracked) == 7


def test_our_own_clipping_holds():
    norms = []

    class Peek(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            norms.append(float(torch.stack([p.grad.norm() for p in pl_module.net.parameters()]).norm()))

    fit(weight_net(gradient_clip_val=1e-3), callbacks=[Peek()])
    assert len(norms) == 7
    assert max(norms) <= 1e-3 * (1 + 1e-6)
    assert min(norms) > 0.9e-3


def test_bf16_uses_the_new_meta_parameters_in_the_real_step():
    calls = []

    class Spy(MetaWeightNet):
        def weights(self, logits, batch):
            found = super().weights(logits, batch)
            calls.append((found.detach().clone(), [p.detach().clone() for p in self.meta_net.parameters()]))
            return found

    module = weight_net(cls=Spy, meta_optimizer=lambda p: torch.optim.SGD(p, lr=1e4))
    fit(module, arrays_float(), precision="bf16-mixed", limit_train_batches=1)
    (virtual, old), (real, new) = calls
    assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert not torch.equal(virtual, real)
    assert torch.isfinite(torch.cat([p.flatten() for p in module.parameters()])).all()


def arrays_float():
    data = arrays()
    data.setup("fit")
    data._train = (data._train[0].float(), data._train[1])
    return data


def test_validation_builds_no_graph_and_no_meta_step():
    grads = []

    class Spy(MetaWeightNet):
        def evaluation_logits(self, x):
            found = super().evaluation_logits(x)
            grads.append(found.requires_grad)
            return found

    module = weight_net(cls=Spy)
    trainer = fit(module, arrays(val_size=0.2))
    assert grads
    assert not any(grads)
    assert {"val/acc", "train/loss", "train/meta_loss"} <= set(trainer.callback_metrics)


def test_a_higher_engine_gives_the_same():
    train, meta = batches()
    module = weight_net(engine="higher").double()
    for one, other in zip(
        module.hypergradient(train, meta, 0.3).gradients, reference(module, train, meta, 0.3), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-10)


def test_what_the_virtual_loss_notes_does_not_reach_the_real_step():
    class Notes(MetaWeightNet):
        def perturb_loss(self, loss, logits, batch):
            assert "noted" not in batch.extra
            batch.extra["noted"] = loss
            return super().perturb_loss(loss, logits, batch)

    train, meta = batches()
    weight_net(cls=Notes).double().hypergradient(train, meta, 0.3)
    assert isinstance(train, Batch)
    assert not train.extra


def test_a_layer_that_no_engine_differentiates_is_named():
    def module(**options):
        torch.manual_seed(0)
        return MetaWeightNet(nn.EmbeddingBag(20, CLASSES), CLASSES, hidden=5, **options).double()

    tokens = Batch(torch.randint(20, (6, 3)), torch.arange(6) % CLASSES)
    with pytest.raises(NotImplementedError, match=r"MetaWeightNet: .*engine='central'"), pytest.warns(match="goes on"):
        module().hypergradient(tokens, tokens, 0.1)
    found = module(engine="central").hypergradient(tokens, tokens, 0.1).gradients
    assert all(gradient.norm() > 0 for gradient in found)
