import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from testkit.script import CLASSES, assert_same, batches, cross_entropy, make, onehot, replay, softmax, train

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, LogPert


def test_exact_by_a_numerical_minimiser():
    lam = 0.3

    def minimiser(u: np.ndarray, y: int) -> np.ndarray:
        # v = a - b with a, b >= 0 makes the l1 norm smooth
        def value(ab):
            z = u + ab[:CLASSES] - ab[CLASSES:]
            return np.log(np.exp(z - z.max()).sum()) + z.max() - z[y] + lam * ab.sum()

        found = minimize(
            value, np.full(2 * CLASSES, 0.1), bounds=[(0, None)] * 2 * CLASSES, options={"ftol": 1e-15, "gtol": 1e-10}
        )
        return found.x[:CLASSES] - found.x[CLASSES:]

    def loss(logits, batch, *_):
        u = logits(batch[0])
        v = np.stack([minimiser(row, y) for row, y in zip(u.detach().numpy(), batch[1].tolist(), strict=True)])
        return cross_entropy(u + torch.from_numpy(v), batch[1]).mean()

    assert_same(train(make(LogPert, lam=lam), epochs=1), replay(loss, epochs=1), tolerance=1e-6)


def test_exact_caps_the_gradient():
    module = make(LogPert, lam=0.2)
    x, y, _ = batches()[0]
    u = (10 * module.net(x)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(module.loss({"logits": u}, Batch(x, y)) * 5, u)
    plain = softmax(u) - onehot(y)
    assert float(slope.abs().max()) <= 0.2 + 1e-12
    untouched = softmax(u).gather(1, y[:, None])[:, 0] >= 0.8
    torch.testing.assert_close(slope[untouched], plain[untouched])


@pytest.mark.parametrize("update", ["exact", "alternating", "joint"])
def test_the_exact_one_stores_nothing(update):
    module = make(LogPert, update=update)
    small = {k: v.numel() for k, v in module.named_buffers()}
    module.size_sample_state(1000)
    grown = {k: v.numel() - small[k] for k, v in module.named_buffers()}
    assert sum(grown.values()) == {"exact": 0, "alternating": 4000, "joint": 8000}[update]
    assert module.needs.index == (update != "exact")


@pytest.mark.parametrize("lam", [1.0, 5.0])
def test_a_price_from_one_on_is_cross_entropy(lam):
    assert_same(train(make(LogPert, lam=lam)), train(make(CrossEntropy)))


@pytest.mark.parametrize("reduction", ["sample_mean", "batch_sum"])
@pytest.mark.parametrize(("solver", "steps"), [("subgradient", 1), ("subgradient", 3), ("prox", 1), ("prox", 3)])
def test_alternating_by_hand(solver, steps, reduction):
    stored = torch.zeros(15, CLASSES, dtype=torch.float64)
    rate, lam = 0.8, 0.15 * (5 if reduction == "batch_sum" else 1)

    def loss(logits, batch, *_):
        x, y, index = batch
        u = logits(x)
        v = stored[index].clone()
        for _ in range(steps):
            down = softmax(u.detach() + v) - onehot(y)
            if solver == "subgradient":
                v = v - rate * (down + lam * torch.sign(v))
            else:
                v = v - rate * down
                v = torch.sign(v) * torch.clamp(v.abs() - rate * lam, min=0)
        stored[index] = v
        return cross_entropy(u + v, y).mean()

    module = make(
        LogPert,
        lam=0.15,
        update="alternating",
        pert_lr=rate,
        l1_solver=solver,
        inner_steps=steps,
        l1_reduction=reduction,
    )
    assert_same(train(module, epochs=3), replay(loss, epochs=3))
    torch.testing.assert_close(module.perturbation[:15], stored)
    assert bool((stored == 0).any()) == (solver == "prox")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("reduction", ["sample_mean", "batch_sum"])
def test_joint_by_hand_with_the_drift_of_samples_that_are_not_visited(reduction, momentum):
    v = torch.zeros(15, CLASSES, dtype=torch.float64)
    velocity = torch.zeros_like(v)
    rate, lam = 6.0, 0.02 * (5 if reduction == "batch_sum" else 1)
    drifted = []

    def loss(logits, batch, *_):
        x, y, index = batch
        # what the released code does: v is a leaf beside the weights, and one SGD optimizer steps on all its rows
        leaf = v.clone().requires_grad_()
        u = logits(x)
        objective = cross_entropy(u.detach() + leaf[index], y).mean() + lam * leaf[index].abs().sum(1).mean()
        (slope,) = torch.autograd.grad(objective, leaf)
        result = cross_entropy(u + v[index].clone(), y).mean()
        velocity.mul_(momentum).add_(slope)
        before = v.clone()
        v.sub_(rate * velocity)
        absent = torch.ones(15, dtype=torch.bool)
        absent[index] = False
        drifted.append(float((v - before)[absent].abs().max()))
        return result

    module = make(LogPert, lam=0.02, update="joint", pert_momentum=momentum, l1_reduction=reduction)
    assert_same(train(module, epochs=3), replay(loss, epochs=3))
    torch.testing.assert_close(module.perturbation[:15], v)
    torch.testing.assert_close(module.velocity[:15], velocity)
    assert (max(drifted) > 0.01) == (momentum > 0)


def schedule(factors):
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: factors[min(step, len(factors) - 1)]
    )


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("update", ["alternating", "joint"])
def test_the_rate_follows_the_schedule(update, follows):
    factors = [0.0, 1.0, 0.5]  # a warm-up that starts at nothing
    seen = []
    module = make(
        LogPert,
        update=update,
        pert_lr=2.0,
        pert_lr_follows_schedule=follows,
        lr_scheduler=schedule(factors),
        lr_interval="step",
    )
    rate = module._rate
    module._rate = lambda: (seen.append(rate()), seen[-1])[1]
    train(module, epochs=1)
    assert seen == pytest.approx([2.0 * factor for factor in factors] if follows else [2.0] * 3)
    assert bool((module.perturbation != 0).any())


def test_published_rates():
    assert make(LogPert, update="alternating").pert_lr == 0.469
    assert make(LogPert, update="joint").pert_lr == 6.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": 0.0}, "lam=0"),
        ({"update": "slow"}, "update='slow'"),
        ({"pert_lr": 1.0}, "pert_lr=1.0 contradicts update='exact'"),
        ({"update": "joint", "inner_steps": 2}, "inner_steps=2"),
        ({"update": "joint", "l1_solver": "prox"}, "l1_solver='prox'"),
        ({"pert_momentum": 1.0}, "pert_momentum=1"),
        ({"l1_reduction": "x"}, "l1_reduction='x'"),
        ({"inner_steps": 0}, "inner_steps=0"),
        ({"update": "alternating", "pert_lr": -1.0}, "pert_lr=-1"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(LogPert, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"pert_lr": 1.0},
        {"inner_steps": 3},
        {"l1_solver": "prox"},
        {"pert_momentum": 0.5},
        {"l1_reduction": "batch_sum"},
        {"pert_lr_follows_schedule": False},
        {"update": "alternating", "pert_momentum": 0.5},
        {"update": "joint", "inner_steps": 2},
        {"update": "joint", "l1_solver": "prox"},
    ],
)
def test_contradicting_options_are_named(options):
    name = next(key for key in options if key != "update")
    with pytest.raises(ValueError, match=f"{name}=.*contradicts update="):
        LogPert(torch.nn.Linear(4, 3), 3, **options)
