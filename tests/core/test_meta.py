"""The base of meta-learned methods: steps, schedulers, resume, ranks, faults."""

import copy
from types import SimpleNamespace

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from testkit.meta import CLASSES, adam, arrays, assert_hypergradient, batches, fit, mlp, reference, sgd
from torch import nn

from lightning_perturb.core import Batch, MetaPerturbationModule, PerturbationModule
from lightning_perturb.core.distributed import world_size
from lightning_perturb.methods import CrossEntropy, MetaMixUp, MetaSAug, MetaWeightNet


def weight_net(norm=False, dropout=0.0, seed=0, cls=MetaWeightNet, **options):
    torch.manual_seed(seed)
    return cls(mlp(norm, dropout), CLASSES, **{"optimizer": sgd, "meta_optimizer": adam, "hidden": 5, **options})


class Sharpened(PerturbationModule):
    """Logits times a number."""

    def __init__(self, *args, strength=1.0, name="x", **kwargs):
        super().__init__(*args, **kwargs)
        self.strength = strength
        self.name = name

    def perturb_logits(self, logits, outputs, batch):
        return self.strength * logits


class MetaSharpened(MetaPerturbationModule, Sharpened):
    """The same, learned."""


def sharpened(interval=(0.0, 4.0), **options):
    torch.manual_seed(0)
    options = {"optimizer": sgd, "meta_parameters": {"strength": interval}, **options}
    return MetaSharpened(mlp(), CLASSES, **options)


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


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


# the step ------------------------------------------------------------------------------------------------------------


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


class Each(Callback):
    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.function(pl_module)


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


# schedulers ----------------------------------------------------------------------------------------------------------


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0)


SCHEDULERS = {
    "epoch": {"lr_scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)},
    "step": {"lr_scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), "lr_interval": "step"},
    "plateau": {"lr_scheduler": plateau},
}


@pytest.mark.parametrize("limit", [1.0, 3])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_rates_are_those_of_automatic_optimization(kind, limit):
    rates = []
    for cls, options in ((CrossEntropy, {}), (MetaWeightNet, {"hidden": 3})):
        module = cls(mlp(), CLASSES, optimizer=sgd, **SCHEDULERS[kind], **options)
        found = []
        watch = Each(lambda m, found=found: found.append(m.trainer.optimizers[0].param_groups[0]["lr"]))
        fit(module, arrays(val_size=8), callbacks=[watch], max_epochs=4, limit_train_batches=limit)
        rates.append(found)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 2


# resume --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_resumed_run_is_bit_identical(kind, tmp_path):
    def module(seed):
        # Lightning loads a checkpoint before it converts to 64-true, into float32
        return weight_net(True, 0.3, seed, meta_every=2, **SCHEDULERS[kind]).double()

    L.seed_everything(1, verbose=False)
    inside = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
    ends = ModelCheckpoint(tmp_path, filename="end-{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    whole = fit(module(0), arrays(val_size=8), [inside, ends], max_epochs=3)
    assert whole.global_step == 18
    expected = everything(whole)
    for name in ("step=5", "step=10", "end-epoch=0", "end-epoch=1"):
        L.seed_everything(99, verbose=False)
        rest = fit(module(5), arrays(val_size=8), max_epochs=3, ckpt_path=tmp_path / f"{name}.ckpt")
        found = everything(rest)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), (name, key)


def everything(trainer):
    found = tensors(trainer.lightning_module)
    for place, optimizer in enumerate(trainer.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            found.update({f"{place}/{number}/{k}": torch.as_tensor(v) for k, v in state.items() if v is not None})
        found[f"{place}/lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
    found["random"] = torch.get_rng_state()
    found["steps"] = torch.tensor(trainer.global_step)
    return found


def test_a_checkpoint_opens_without_arguments_but_the_network(tmp_path):
    trainer = fit(sharpened(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    from lightning_perturb import load

    module = load(tmp_path / "a.ckpt", net=mlp())
    assert module.strength.item() == pytest.approx(trainer.lightning_module.strength.item(), rel=1e-6)
    assert "meta_optimizer" not in module.hparams


# ranks ---------------------------------------------------------------------------------------------------------------


class OwnWeights(Callback):
    """Every rank starts from another θ: rank 0's must reach all."""

    def setup(self, trainer, pl_module, stage):
        if world_size() > 1 and torch.distributed.get_rank():
            with torch.no_grad():
                pl_module.meta_net.layers[0].weight.add_(1.0)


def on_ranks(size, norm, every):
    module = weight_net(norm, meta_every=every, lr_scheduler=SCHEDULERS["epoch"]["lr_scheduler"])
    data = arrays(batch_size=8 // size, meta_batch_size=8 // size)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    trainer = fit(module, data, [OwnWeights()], max_epochs=2, **options)
    assert trainer.global_step == 14
    return everything(trainer)


@pytest.mark.parametrize("every", [1, 2])
def test_two_ranks_equal_one_process(ranks, every):
    one = on_ranks(1, False, every)
    first, second = ranks(on_ranks, 2, False, every)
    for name, value in one.items():
        if name == "random":
            continue
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-10, atol=1e-12), name


def number_on_ranks(size):
    data = arrays(batch_size=8 // size, meta_batch_size=8 // size)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    return everything(fit(sharpened(meta_optimizer=adam).double(), data, **options))


def test_two_ranks_learn_a_number_as_one_process(ranks):
    one = number_on_ranks(1)
    first, second = ranks(number_on_ranks, 2)
    assert one["strength"] != 1.0
    for name in one.keys() - {"random"}:
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], one[name], rtol=1e-10, atol=1e-12), name


def test_with_batch_norm_ranks_agree_in_everything(ranks):
    first, second = ranks(on_ranks, 2, True, 1)
    for name, value in first.items():
        assert name == "random" or torch.equal(value, second[name]), name


# faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0.5\) .*Give gradient_clip_val=0.5 to MetaWeightNet"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches=2.*Raise batch_size"),
        ({"precision": "16-true"}, "precision='16-true'.*bf16-mixed"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_with_it_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        fit(weight_net(), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "16-mixed"}, "precision='16-mixed'.*bf16-mixed"),
        ({"strategy": object.__new__(FSDPStrategy)}, "FSDPStrategy.*strategy='ddp'"),
        ({"strategy": object.__new__(DeepSpeedStrategy)}, "DeepSpeedStrategy.*strategy='ddp'"),
    ],
    ids=["half", "fsdp", "deepspeed"],
)
def test_settings_that_need_other_machines_are_named(options, text):
    settings = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "precision": "32", **options}
    with pytest.raises(ValueError, match=text):
        weight_net()._check_trainer(SimpleNamespace(**settings))


def test_faults_are_named():
    with pytest.raises(ValueError, match="meta_every=0"):
        weight_net(meta_every=0)
    with pytest.raises(ValueError, match="engine='fast' is unknown"):
        weight_net(engine="fast")
    with pytest.raises(ValueError, match="gradient_clip_val=-1"):
        weight_net(gradient_clip_val=-1)
    for name in ("name", "nothing"):
        with pytest.raises(ValueError, match=f"meta_parameters names '{name}'"):
            sharpened(meta_parameters={name: (0, 1)})
    with pytest.raises(ValueError, match=r"keeps 'strength' in \[2, 3\], but it starts at 1"):
        sharpened((2, 3))
    with pytest.raises(ValueError, match="has nothing to learn from meta samples"):
        fit(sharpened(meta_parameters=None))
    with pytest.raises(ValueError, match=r"MetaWeightNet .*meta_size=0"):
        fit(weight_net(), arrays(meta_size=0))
    with pytest.raises(ValueError, match="ReduceLROnPlateau waits for 'val/loss', which is not logged"):
        fit(weight_net(lr_scheduler=plateau))
    with pytest.raises(ValueError, match="lr_interval='step' does not go with ReduceLROnPlateau"):
        fit(weight_net(lr_scheduler=plateau, lr_interval="step"))
    plain = torch.utils.data.DataLoader([(torch.zeros(6), 1)] * 4, batch_size=2)
    with pytest.raises(ValueError, match=r"its batches have none.*'meta': loader"):
        L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
            weight_net(), plain
        )


def test_loaders_of_the_users_own_do_too():
    def loader(label):
        samples = [(torch.randn(6, dtype=torch.float64), label(n)) for n in range(8)]
        return torch.utils.data.DataLoader(samples, batch_size=4)

    good = loader(lambda n: n % CLASSES)
    for meta in (good, loader(lambda n: 9)):
        trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        module = weight_net().double()
        if meta is good:
            trainer.fit(module, {"train": good, "meta": meta})
            assert trainer.global_step == 2
        else:
            with pytest.raises(ValueError, match="A meta label is 9"):
                trainer.fit(module, {"train": good, "meta": meta})


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


def test_rates_that_nothing_has_are_refused():
    with pytest.raises(ValueError, match=r"nothing to learn.*Raise sigma_lr, or take ISDA"):
        fit(MetaSAug(mlp(), CLASSES, optimizer=sgd, class_counts=[9, 9, 9, 9], sigma_lr=0.0).double())
    with pytest.raises(ValueError, match="meta_optimizer was given to MetaMixUp"):
        fit(MetaMixUp(mlp(), CLASSES, optimizer=sgd, meta_optimizer=adam).double())


def test_meta_labels_of_any_integer_type_do():
    samples = [(torch.randn(6, dtype=torch.float64), torch.tensor(n % CLASSES, dtype=torch.int32)) for n in range(8)]
    loaders = {name: torch.utils.data.DataLoader(samples, batch_size=4) for name in ("train", "meta")}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(weight_net().double(), loaders)
    assert trainer.global_step == 2
