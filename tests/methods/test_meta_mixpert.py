"""Meta-MixPert."""

import pytest
import torch
import torch.nn.functional as F
from testkit.meta import CLASSES, adam, arrays, assert_hypergradient, batches, fit, mlp, reference, sgd

from lightning_perturb.core.distributed import world_size
from lightning_perturb.methods import MetaMixPert

ATTACK = {"eps2": 0.1, "step_size": 0.05, "steps": 2, "clip": False, "eps_space": "normalized"}


def make(**options):
    torch.manual_seed(0)
    return MetaMixPert(mlp(), CLASSES, **{"optimizer": sgd, "meta_optimizer": adam, "hidden": 6, **options}).double()


@pytest.mark.parametrize("margin_of", ["probability", "logit"])
@pytest.mark.parametrize(
    "characteristics", [("loss", "gradient_norm", "margin"), ("loss", "margin"), ("gradient_norm",)], ids=str
)
def test_its_hypergradient_is_exact(characteristics, margin_of):
    assert_hypergradient(make(characteristics=characteristics, margin_of=margin_of))


def test_its_hypergradient_is_exact_with_an_attack():
    module = make(**ATTACK)
    train, meta = batches()
    train = module.perturb_input(train)
    moved = train.extra["delta"].abs()
    assert 0.05 < moved.max() <= 0.1 + 1e-12
    found = module.hypergradient(train, meta, 0.5).gradients
    for one, other in zip(found, reference(module, train, meta, 0.5), strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


@pytest.mark.parametrize("attack", [{}, ATTACK], ids=["plain", "attack"])
def test_the_loss_is_equation_62(attack):
    module = make(eta=3.0, **attack)
    train, _ = batches()
    clean = module.net(train.x)
    train = module.perturb_input(train)
    other = module.net(train.x + train.extra["delta"]) if attack else clean
    losses, weights = [], []
    p = clean.softmax(1).detach()
    for i, y in enumerate(train.y.tolist()):
        e = torch.eye(CLASSES, dtype=torch.float64)[y]
        rival = max(p[i, c] for c in range(CLASSES) if c != y)
        weights.append(torch.stack([-p[i, y].log(), (p[i] - e).norm(), p[i, y] - rival]))
        lowered = F.cross_entropy((clean[i] + 3.0 * (e - p[i]))[None], train.y[i : i + 1])
        losses.append((lowered, F.cross_entropy(other[i : i + 1], train.y[i : i + 1])))
    features = torch.stack(weights)
    features = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    alpha = module.meta_net(features).sigmoid()[:, 0]
    expected = sum(a * low + (1 - a) * high for a, (low, high) in zip(alpha, losses, strict=True)) / len(train)
    outputs = module.outputs(module.net, train)
    found = module.loss(outputs, train)
    assert torch.allclose(found, expected)
    one, two = (torch.autograd.grad(v, list(module.net.parameters())) for v in (found, expected))
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a, b)


def test_it_trains_and_warms_up():
    module = make(warmup_epochs=1, **ATTACK)
    trainer = fit(module, max_epochs=2)
    assert {int(state["step"]) for state in trainer.optimizers[1].state.values()} == {7}


def with_norm(**options):
    torch.manual_seed(0)
    return MetaMixPert(mlp(norm=True), CLASSES, optimizer=sgd, hidden=6, **ATTACK, **options).double()


@pytest.mark.parametrize("engine", ["forward", "higher"])
def test_batch_norm_statistics_move_once_and_with_the_clean_inputs(engine):
    module = with_norm(engine=engine)
    first, norm, *_, last = module.net
    train, meta = batches()
    train = module.perturb_input(train)
    hidden = first(train.x)
    outputs = module.hypergradient(train, meta, 0.5).training_outputs()
    assert torch.allclose(norm.running_mean, 0.1 * hidden.mean(0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * hidden.var(0))
    assert int(norm.num_batches_tracked) == 1
    assert norm.track_running_stats
    # the attacked inputs are normalised by their own batch
    attacked = first(train.x + train.extra["delta"])
    normed = (attacked - attacked.mean(0)) / (attacked.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(outputs["attacked_logits"], last(normed.tanh()))


def test_its_hypergradient_is_exact_with_an_attack_and_batch_norm():
    module = with_norm()
    train, meta = batches()
    train = module.perturb_input(train)
    expected = reference(module, train, meta, 0.5)
    for one, other in zip(module.hypergradient(train, meta, 0.5).gradients, expected, strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_hard_alpha_rounds_the_real_step_alone():
    soft, hard = make(**ATTACK), make(alpha_hard=True, **ATTACK)
    train, meta = batches()
    train = hard.perturb_input(train)
    for one, other in zip(*(m.hypergradient(train, meta, 0.5).gradients for m in (soft, hard)), strict=True):
        assert torch.equal(one, other)
        assert other.norm() > 0
    with torch.no_grad():
        outputs = hard.outputs(hard.net, train)
        alpha = hard.alpha(outputs["logits"], train.y)
        chosen = alpha >= alpha.median()
        # the middle of the batch on the threshold
        hard.meta_net = Shifted(hard.meta_net, -torch.logit(alpha.median()))
        found = hard.loss(outputs, train.copy())
        p = outputs["logits"].softmax(1)
        lowered = F.cross_entropy(outputs["logits"] + hard.eta * (torch.eye(CLASSES).double()[train.y] - p), train.y,
                                  reduction="none")  # fmt: skip
        raised = F.cross_entropy(outputs["attacked_logits"], train.y, reduction="none")
    assert 0 < chosen.sum() < len(chosen)
    assert torch.allclose(found, torch.where(chosen, lowered, raised).mean())


class Shifted(torch.nn.Module):
    """A network plus a number."""

    def __init__(self, net, by):
        super().__init__()
        self.net, self.by = net, by + 1e-9

    def forward(self, x):
        return self.net(x) + self.by


def on_ranks(size, attack):
    module = make(**(ATTACK if attack else {}))
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    fit(module, arrays(batch_size=8 // size, meta_batch_size=8 // size), **options)
    assert world_size() == size
    return module.state_dict()


@pytest.mark.parametrize("attack", [False, True])
def test_two_ranks_equal_one_process(ranks, attack):
    one = on_ranks(1, attack)
    first, second = ranks(on_ranks, 2, attack)
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], value, rtol=1e-10, atol=1e-12), name


def test_faults_are_named():
    for characteristics in ((), ("loss", "loss")):
        with pytest.raises(ValueError, match="is empty or names one twice"):
            make(characteristics=characteristics)
    with pytest.raises(ValueError, match="characteristics='age' is unknown"):
        make(characteristics=("age",))
    with pytest.raises(ValueError, match="eta=0"):
        make(eta=0)
    with pytest.raises(ValueError, match="eps2=-1"):
        make(eps2=-1)
