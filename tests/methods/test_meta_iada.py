"""Meta-IADA."""

import copy
from types import SimpleNamespace

import higher
import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from testkit.covariances import Statistics, quadratic, signs
from testkit.meta import CLASSES, WithFeatures, adam, arrays, batches, fit, sgd
from torch import Tensor, nn

from lightning_perturb import load
from lightning_perturb.core.distributed import world_size
from lightning_perturb.data import Exponential, Symmetric
from lightning_perturb.functional import Observation, training_characteristics
from lightning_perturb.functional.characteristics import CHARACTERISTICS
from lightning_perturb.methods import MetaIADA, MetaSAug
from lightning_perturb.nets import ResNet20

COUNTS = [8, 4, 3, 1]


def make(norm=False, seed=0, **options):
    torch.manual_seed(seed)
    options = {"optimizer": sgd, "meta_optimizer": adam, "hidden": 6, "sigma_lr": 0.3, **options}
    module = MetaIADA(WithFeatures(norm=norm), CLASSES, **options).double()
    if module.robustness:
        # away from the start, where there is hardly any perturbation
        with torch.no_grad():
            module.perturbation_net.layers[-1].weight.mul_(100)
    return module


def tail(**options):
    return arrays(**{"label_noise": Symmetric(0.2), "imbalance": Exponential(3.0), **options})


class ByHand:
    """The state of Meta-IADA, kept by its definitions."""

    def __init__(self, net, perturbation_net, counts, parts=("generalization", "robustness", "fairness")):
        self.net, self.perturbation_net, self.parts = net, perturbation_net, parts
        self.counts = torch.as_tensor(counts).double()
        self.statistics = Statistics(5)
        self.class_loss = torch.full((CLASSES,), float(CLASSES), dtype=torch.float64).log()
        self.history = torch.full((60,), 1 / CLASSES, dtype=torch.float64)
        self.moments = None
        self.steps = 0

    @property
    def prior(self):
        return (self.counts / self.counts.sum()).log()

    def characteristics(self, logits, features, weight, batch):
        sigma = self.statistics.covariance().diagonal(dim1=1, dim2=2)
        seen = Observation(
            logits, batch.y, features, weight, self.prior, self.class_loss, self.statistics.mean(), sigma,
            self.history[batch.index],
        )  # fmt: skip
        values = training_characteristics(seen, CHARACTERISTICS)
        mean, variance = values.mean(0), values.var(0, correction=0)
        if self.moments is not None:
            # the variance of a mixture of the old and the new values
            share = max(1 / (self.steps + 1), 0.1)
            old_mean, old_variance = self.moments
            second = (1 - share) * (old_variance + old_mean**2) + share * (variance + mean**2)
            mean = (1 - share) * old_mean + share * mean
            variance = second - mean**2
        return (values - mean) / (variance + 1e-5).sqrt(), (mean, variance)

    def loss(self, logits, weight, batch, sigma, values, perturbation_net):
        u = logits
        if "generalization" in self.parts:
            u = u + 0.5 * quadratic(weight, sigma, batch.y)
        if "robustness" in self.parts:
            epsilon = perturbation_net(values.clamp(-5, 5)).tanh()
            u = u + (epsilon * signs(logits, weight, batch.y)) @ weight.T
        if "fairness" in self.parts:
            u = u + self.prior
        return F.cross_entropy(u, batch.y)

    def gradients(self, train, meta, lr):
        """dM/dΩ and dM/dΣ by `higher` alone, through one virtual step."""
        sigma = self.statistics.covariance().requires_grad_()
        net = copy.deepcopy(self.net)
        place = [name for name, _ in net.named_parameters()].index("head.weight")
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (patched, differentiable):
            logits, features = patched(train.x)
            weight = list(patched.parameters())[place]
            values, _ = self.characteristics(logits, features, weight, train)
            differentiable.step(self.loss(logits, weight, train, sigma, values, self.perturbation_net))
            outer = F.cross_entropy(patched(meta.x)[0], meta.y)
            theta = list(self.perturbation_net.parameters()) if "robustness" in self.parts else []
            inputs = [*theta, sigma] if "generalization" in self.parts else theta
            return torch.autograd.grad(outer, inputs)

    def update(self, logits, features, batch, moments):
        losses = F.cross_entropy(logits, batch.y, reduction="none").detach()
        for c in batch.y.unique().tolist():
            self.class_loss[c] = 0.9 * self.class_loss[c] + 0.1 * losses[batch.y == c].mean()
        self.history[batch.index] = 0.9 * self.history[batch.index] + 0.1 * (-losses).exp()
        if moments is not None:
            self.moments, self.steps = moments, self.steps + 1
            self.statistics.add(features, batch.y)


SWITCHES = [
    ("generalization", "robustness", "fairness"),
    ("robustness", "fairness"),
    ("generalization", "fairness"),
    ("generalization", "robustness"),
    ("robustness",),
]


@pytest.mark.parametrize("engine", ["forward", "higher"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("parts", SWITCHES, ids="+".join)
def test_its_hypergradient_is_exact(parts, norm, engine):
    off = {part: False for part in SWITCHES[0] if part not in parts}
    module = make(norm, engine=engine, **off)
    module.class_counts.copy_(torch.tensor(COUNTS))
    hand = ByHand(module.net, getattr(module, "perturbation_net", None), COUNTS, parts)
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    hand.statistics.add(features, torch.arange(40) % CLASSES)
    module.feature_covariance.copy_(hand.statistics.covariance())
    module.feature_mean.copy_(hand.statistics.mean())
    train, meta = batches()
    found = module.hypergradient(train, meta, 0.6).gradients
    expected = hand.gradients(train, meta, 0.6)
    assert len(found) == len(expected) == 4 * ("robustness" in parts) + ("generalization" in parts)
    for one, other in zip(found, expected, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-10 * other.norm()


class Recurrent(nn.Module):
    """Reads its input as a sequence; without and with attention."""

    def __init__(self, attention):
        super().__init__()
        self.layer = (
            nn.TransformerEncoderLayer(2, 1, 4, dropout=0.2, batch_first=True)
            if attention
            else nn.LSTM(2, 3, bidirectional=True, batch_first=True)
        )
        self.head = nn.Linear(2 if attention else 6, CLASSES)

    def forward(self, x):
        out = self.layer(x.unflatten(1, (3, 2)))
        return self.head((out[0] if isinstance(out, tuple) else out).mean(1))


class Image(nn.Module):
    """A residual network with batch norm on small images made of the features."""

    def __init__(self):
        super().__init__()
        self.net = ResNet20(CLASSES)

    def forward(self, x):
        return self.net(x[:, None, :, None] * x[:, None, None, :].repeat(1, 3, 1, 1))


NETS = {"lstm": lambda: Recurrent(False), "transformer": lambda: Recurrent(True), "resnet20": Image}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("method", [MetaIADA, MetaSAug])
@pytest.mark.parametrize("net", NETS)
def test_on_other_networks_the_fast_engine_equals_the_reference(net, method, dtype, tolerance):
    train, meta = batches(dtype=dtype)
    found = []
    for engine in ("forward", "higher"):
        torch.manual_seed(0)
        module = method(NETS[net](), CLASSES, optimizer=sgd, ramp="constant", engine=engine).to(dtype)
        module.class_counts.copy_(torch.tensor(COUNTS))
        root = torch.randn(CLASSES, module.num_features, module.num_features, dtype=dtype)
        module.feature_covariance.copy_(root @ root.mT / module.num_features)
        if method is MetaIADA:
            with torch.no_grad():
                module.perturbation_net.layers[-1].weight.mul_(100)
        # the same dropout masks
        torch.manual_seed(1)
        found.append(module.hypergradient(train.copy(), meta, 0.1).gradients)
    for one, other in zip(*found, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("norm", [False, True])
def test_training_is_algorithm_1_by_hand(norm):
    seen = []

    class Peek(MetaIADA):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch["train"], batch["meta"]))
            return super().training_step(batch, batch_idx)

    module = make(norm, warmup_epochs=1)
    module.__class__ = Peek
    net, perturbation_net = copy.deepcopy(module.net), copy.deepcopy(module.perturbation_net)
    data = tail()
    trainer = fit(module, data, max_epochs=3)
    assert trainer.global_step == len(seen)

    hand = ByHand(net, perturbation_net, data.class_counts)
    optimizer, meta_optimizer = sgd(net.parameters()), adam(perturbation_net.parameters())
    for epoch, train, meta in seen:
        logits, features = net(train.x)
        moments = None
        if epoch < 1:
            loss = F.cross_entropy(logits, train.y)
        else:
            # before the real forward's running statistics; in train mode they are not read
            *omega, sigma_gradient = hand.gradients(train, meta, 0.2)
            for parameter, gradient in zip(perturbation_net.parameters(), omega, strict=True):
                parameter.grad = gradient
            meta_optimizer.step()
            sigma = hand.statistics.covariance() - 0.3 * sigma_gradient
            values, moments = hand.characteristics(logits, features, net.head.weight, train)
            loss = hand.loss(logits, net.head.weight, train, sigma, values, perturbation_net)
        hand.update(logits, features, train, moments)
        optimizer.zero_grad()
        loss.backward(inputs=list(net.parameters()))
        optimizer.step()
    expected = {
        **{f"net.{name}": value for name, value in net.state_dict().items()},
        **{f"perturbation_net.{name}": value for name, value in perturbation_net.state_dict().items()},
        "class_loss": hand.class_loss,
        "label_history": hand.history,
        "feature_covariance": hand.statistics.covariance(),
        "moment_mean": hand.moments[0],
        "moment_variance": hand.moments[1],
    }
    for name, value in expected.items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-8, atol=1e-10, msg=name)


# resume, ranks, precision ---------------------------------------------------------------------------------------------


def everything(trainer):
    found = {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}
    for place, optimizer in enumerate(trainer.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            found.update({f"{place}/{number}/{k}": torch.as_tensor(v) for k, v in state.items() if v is not None})
    found["random"] = torch.get_rng_state()
    return found


def test_a_resumed_run_is_bit_identical(tmp_path):
    def run(seed, **options):
        L.seed_everything(seed, verbose=False)
        module = make(True, seed, warmup_epochs=1, meta_every=2)
        return fit(module, tail(val_size=8), max_epochs=3, **options)

    saves = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    whole = run(1, callbacks=[saves])
    expected = everything(whole)
    assert {"label_history", "feature_covariance", "class_loss", "moment_mean", "1/0/exp_avg"} <= expected.keys()
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) > 3
    for path in paths[:-1]:
        found = everything(run(99, ckpt_path=path))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), (path.name, key)


def on_ranks(size, norm):
    module = make(norm, warmup_epochs=1)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    trainer = fit(module, tail(batch_size=8 // size, meta_batch_size=8 // size), max_epochs=3, **options)
    assert world_size() == size
    logged = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
    return module.state_dict(), {name: float(value) for name, value in logged.items()}


def test_two_ranks_equal_one_process(ranks):
    one, logged = on_ranks(1, False)
    (first, first_logged), (second, _) = ranks(on_ranks, 2, False)
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-10, atol=1e-12), name
    assert {"train/generalization", "train/robustness", "train/fairness"} <= logged.keys()
    assert first_logged == pytest.approx(logged, rel=1e-5)


def test_with_batch_norm_ranks_agree_in_everything(ranks):
    (first, _), (second, _) = ranks(on_ranks, 2, True)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def in_single(data):
    data.setup("fit")
    data._train = (data._train[0].float(), data._train[1])
    return data


def test_half_precision_follows_single():
    def run(precision):
        module = make(True).float()
        fit(module, in_single(tail()), precision=precision)
        return module

    half, single = run("bf16-mixed"), run("32")
    assert all(bool(value.isfinite().all()) for value in half.state_dict().values())
    assert half.feature_covariance.dtype == torch.float32
    torch.testing.assert_close(half.feature_covariance, single.feature_covariance, rtol=0.2, atol=0.05)
    torch.testing.assert_close(half.label_history, single.label_history, rtol=0.1, atol=0.05)


# options --------------------------------------------------------------------------------------------------------------


def scaled_loss(seen: Observation) -> Tensor:
    """A characteristic of the user's own."""
    return 2 * seen.losses


def test_characteristics_can_be_replaced():
    path = f"{__name__}.scaled_loss"
    module = make(characteristics=["sample_loss", path, "class_frequency"])
    module.class_counts.copy_(torch.tensor(COUNTS))
    assert module.perturbation_net.layers[0].in_features == 3
    train, _ = batches()
    values = module.standardized(module.outputs(module.net, train), train)
    torch.testing.assert_close(values[:, 0], values[:, 1], rtol=1e-3, atol=1e-3)
    fit(module, tail())
    assert module.hparams["characteristics"] == ["sample_loss", path, "class_frequency"]
    assert len(make().characteristics) == 15
    for names, text in (
        ([], "is empty or names one twice"),
        (["sample_loss"] * 2, "is empty or names one twice"),
        (["age"], r"characteristics names 'age'.*sample_loss, label_probability"),
        (["lightning_perturb.nothing.f"], "cannot be imported"),
    ):
        with pytest.raises(ValueError, match=text):
            make(characteristics=names)


def test_a_checkpoint_opens_without_arguments_but_the_network(tmp_path):
    trainer = fit(make(characteristics=["sample_loss", "correctness"], eps_scale=0.5), tail())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    module = load(tmp_path / "a.ckpt", net=WithFeatures())
    assert module.eps_scale == 0.5
    assert torch.equal(module.moment_mean, trainer.lightning_module.moment_mean.float())
    assert [f.__name__ for f in module.characteristics] == ["sample_loss", "correctness"]


def test_it_starts_with_hardly_any_perturbation():
    torch.manual_seed(0)
    module = MetaIADA(WithFeatures(), CLASSES).double()
    module.class_counts.copy_(torch.tensor(COUNTS))
    train, _ = batches()
    epsilon = module.epsilon(module.outputs(module.net, train), train)
    assert 0 < epsilon.abs().max() < 0.05
    wide = make(eps_scale=3.0)
    wide.class_counts.copy_(torch.tensor(COUNTS))
    narrow = make(eps_scale=1.0)
    narrow.class_counts.copy_(torch.tensor(COUNTS))
    found = [m.epsilon(m.outputs(m.net, train), train) for m in (wide, narrow)]
    torch.testing.assert_close(found[0], 3 * found[1])
    assert found[1].abs().max() < 1


def test_without_an_index_the_history_is_that_of_an_untrained_network():
    module = make(characteristics=["learning_history"])
    module.class_counts.copy_(torch.tensor(COUNTS))
    train, _ = batches()
    train.index = None
    seen = module.observe(module.outputs(module.net, train), train)
    assert seen.history is None
    assert (CHARACTERISTICS[13](seen) == 1 / CLASSES).all()


def test_faults_are_named():
    with pytest.raises(ValueError, match="MetaIADA has nothing to learn"):
        fit(make(generalization=False, robustness=False), tail())
    with pytest.raises(ValueError, match="MetaIADA learns from clean meta samples of every class, but meta_size=0"):
        fit(make(), tail(meta_size=0))
    with pytest.raises(ValueError, match="meta_size=2 leaves 2 of 4 classes without a clean sample"):
        fit(make(), tail(meta_size=2))
    with pytest.raises(ValueError, match="hidden"):
        make(hidden=0)
    trainer = SimpleNamespace(gradient_clip_val=None, accumulate_grad_batches=1, precision="16-mixed")
    with pytest.raises(ValueError, match=r"precision='16-mixed'.*MetaIADA.*bf16-mixed"):
        make()._check_trainer(trainer)
