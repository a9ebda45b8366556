"""Attacks on a network, sample by sample."""

import itertools

import pytest
import torch
from testkit.cases import methods
from testkit.served import build
from testkit.training import CLASSES, TinyConv, different, digits
from torch import nn

from lightning_perturb import attacks
from lightning_perturb.attacks import APGD, FGSM, PGD, Attack, right_under
from lightning_perturb.core import Batch, DataFacts
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.core.plain import as_plain, from_plain
from lightning_perturb.functional import pgd
from lightning_perturb.methods import CrossEntropy, PostHocLogitAdjustment

FACTS = DataFacts(100, CLASSES, torch.ones(CLASSES).long().numpy(), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def trained():
    """A network, normalised digits and what they are, in double precision."""
    torch.manual_seed(0)
    x, y = digits()
    x, y = (x[:200].double() / 255 - 0.3) / 0.4, y[:200]
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, CLASSES)).double()
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.requires_grad_(False), x, y


def survivors(attack, net, x, y, keys, **options):
    return attack.survivors(net, x, y, keys, FACTS, **options)


def stands(net, image, label, attack, key, attempt, seed=0):
    """One try against one sample, in pixels and with a loop of its own."""
    pixels = image * 0.4 + 0.3
    start = torch.zeros_like(pixels)
    if attack.random_start:
        keys = torch.tensor([key])
        if attack.norm == "linf":
            u = keyed_random.uniform(seed, f"attack/{attempt}", 0, keys, *pixels.shape).double()[0]
            start = (2 * u - 1) * attack.eps
        else:
            u = keyed_random.normal(seed, f"attack/{attempt}", 0, keys, *pixels.shape).double()[0]
            length = keyed_random.uniform(seed, f"attack/{attempt}/length", 0, keys).double()[0]
            start = u / u.norm() * length ** (1 / u.numel()) * attack.eps

    def project(z):
        move = z - pixels
        if attack.norm == "linf":
            move = move.clamp(-attack.eps, attack.eps)
        elif move.norm() > attack.eps:
            move = move * attack.eps / move.norm()
        return (pixels + move).clamp(0, 1)

    z = project(pixels + start)
    for _ in range(attack.steps):
        z = z.clone().requires_grad_()
        loss = -net(((z - 0.3) / 0.4)[None]).log_softmax(1)[0, label]
        (gradient,) = torch.autograd.grad(loss, z)
        step = gradient.sign() if attack.norm == "linf" else gradient / gradient.norm()
        z = project(z.detach() + attack.step_size * step)
    return bool(net(((z - 0.3) / 0.4)[None]).argmax(1) == label)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(0.15, 0.04, 2, restarts=3),
        PGD(1.0, 0.2, 2, norm="l2", restarts=2),
        PGD(0.05, 0.02, 4, random_start=False),
    ],
    ids=["linf", "l2", "from the input"],
)
def test_a_sample_is_robust_if_every_try_fails(trained, attack):
    net, x, y = trained
    x, y, keys = x[:60], y[:60], torch.arange(60) * 7
    tries = [
        [stands(net, x[i], y[i], attack, int(keys[i]), attempt) for attempt in range(attack.restarts)]
        for i in range(60)
    ]
    found = survivors(attack, net, x, y, keys)
    assert found.tolist() == [all(row) for row in tries]
    assert 0 < found.sum() < 60
    if attack.restarts > 1:
        assert any(any(row) and not all(row) for row in tries), "the tries must differ for this to say something"


def test_starts_belong_to_samples(trained):
    net, x, y = trained
    attack, keys = PGD(0.25, 0.02, 1), torch.arange(200)
    whole = survivors(attack, net, x, y, keys)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = torch.cat([survivors(attack, net, x[part], y[part], part) for part in order.split(17)])
    assert torch.equal(shuffled, whole[order])
    others = [survivors(attack, net, x, y, keys, seed=1), survivors(attack, net, x, y, keys + 1000)]
    assert all(not torch.equal(other, whole) for other in others)


def test_stronger_attacks_leave_less(trained):
    net, x, y = trained
    left = {
        name: int(survivors(attack, net, x, y, torch.arange(200)).sum())
        for name, attack in {
            "none": PGD(0.0, steps=1),
            "fgsm": FGSM(0.06),
            "pgd": PGD(0.06),
            "best": PGD(0.06, best=True),
            "apgd": APGD(0.06, steps=20),
            "restarts": APGD(0.06, steps=20, restarts=3),
        }.items()
    }
    assert left["none"] == int((net(x).argmax(1) == y).sum()) > 190
    assert left["none"] > left["fgsm"] > left["pgd"] >= left["apgd"] >= left["restarts"] > 0
    assert abs(left["best"] - left["pgd"]) <= 2


class Watched(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.net(x)


@pytest.mark.parametrize("attack", [PGD(0.1, steps=3), PGD(0.7, steps=3, norm="l2"), APGD(0.1, steps=3), FGSM(0.1)])
def test_what_is_judged_is_in_the_ball_and_a_picture(trained, attack):
    net, x, y = trained
    watched = Watched(net)
    survivors(attack, watched, x, y, torch.arange(200))
    moved, pixels = watched.seen[-1] * 0.4 + 0.3, x * 0.4 + 0.3
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9
    move = (moved - pixels).flatten(1)
    sizes = move.abs().amax(1) if attack.norm == "linf" else move.norm(dim=1)
    assert sizes.max() <= attack.eps + 1e-9
    assert sizes.median() > 0.5 * attack.eps


def test_released_settings_are_units_of_the_network_input(trained):
    net, x, y = trained
    attack = PGD(0.2, 0.1, 3, random_start=False, space=InputSpace("input", clip=False))
    delta = pgd(net, x, y, 0.2, 0.1, 3)
    expected = net(x + delta).argmax(1) == y
    assert torch.equal(survivors(attack, net, x, y, torch.arange(200)), expected)


def test_radii_and_steps():
    assert PGD(0.1, steps=20).step_size == pytest.approx(0.0125)
    assert PGD(0.1, steps=20).at(0.2).step_size == pytest.approx(0.025)
    larger = PGD(0.1, 0.02, 7, norm="l2", restarts=2).at(0.3)
    assert (larger.eps, larger.step_size, larger.steps) == (0.3, pytest.approx(0.06), 7)
    assert (larger.norm, larger.restarts) == ("l2", 2)
    assert FGSM(0.1, "l2").at(0.2).eps == 0.2
    assert APGD(0.1, steps=5).at(0.2).steps == 5


def test_an_attack_is_plain_data():
    for attack in (PGD(0.1, restarts=3, space=InputSpace("input", clip=False)), APGD(steps=7), FGSM(0.1, "l2")):
        again = from_plain(as_plain(attack))
        assert repr(again) == repr(attack)
        assert again.eps == attack.eps
        assert again.space.units == attack.space.units
    assert set(attacks.__all__) >= {"PGD", "APGD", "FGSM", "Attack", "right_under"}


# a module ---------------------------------------------------------------------------------------------------------


def batch_of(count=8, several=False):
    x, y = digits()
    return Batch(x[:count].float() / 255, nn.functional.one_hot(y[:count], 10) if several else y[:count])


@pytest.mark.parametrize("several", [False, True])
def test_every_method_is_attacked_and_left_as_it_was(several):
    outcomes = set()
    for method in [method for method in methods() if method.multi_label == several]:
        module = build(method, net=TinyConv(norm=True, dropout=0.3))
        module.class_counts.fill_(5)
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        modes, random = [m.training for m in module.modules()], torch.get_rng_state()
        with torch.inference_mode():
            batch = batch_of(several=several)
            if several:
                with pytest.raises(ValueError, match=r"labels are of shape \(8, 10\)"):
                    right_under([FGSM()], module, batch, torch.arange(8))
                continue
            right = right_under([PGD(0.3, steps=2), PGD(0.6, steps=2)], module, batch, torch.arange(8))
            logits = module.eval().evaluation_logits(batch.view)
            module.train()
        assert torch.equal(right[:, 0], logits.argmax(1) == batch.y), method.__name__
        for (_, first), (_, second) in itertools.pairwise(enumerate(right.T)):
            assert not (second & ~first).any()
        outcomes.add(tuple(right.sum(0).tolist()))
        assert [m.training for m in module.modules()] == modes, method.__name__
        assert different(before, dict(module.state_dict())) == [], method.__name__
        assert all(bool((p.grad == 1).all()) for p in module.parameters()), method.__name__
        assert torch.equal(torch.get_rng_state(), random), method.__name__
    assert several or len(outcomes) > 1


def test_a_post_hoc_method_is_attacked_as_it_predicts():
    module = build(PostHocLogitAdjustment).eval()
    counts = torch.tensor([10, 11, 9, 10, 12, 8, 10, 10, 11, 10])
    module.class_counts.copy_(counts)
    log_prior = torch.log(counts / 101)
    batch, attack = batch_of(60), PGD(0.1, 0.05, 3, random_start=False)
    adjusted = right_under([attack], module, batch, torch.arange(60))
    delta = pgd(lambda x: module(x) - log_prior, batch.x, batch.y, 0.1, 0.05, 3, low=0.0, high=1.0)
    right = [(module(x) - log_prior).argmax(1) == batch.y for x in (batch.x, batch.x + delta)]
    assert torch.equal(adjusted, torch.stack([right[0], right[0] & right[1]], 1))
    plain = right_under([attack], build(CrossEntropy), batch, torch.arange(60))
    assert not torch.equal(adjusted, plain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(-0.1), r"eps=-0\.1"),
        (lambda: PGD(step_size=-1.0), r"step_size=-1\.0"),
        (lambda: PGD(steps=0), "steps=0"),
        (lambda: PGD(norm="l1"), "norm='l1' is unknown"),
        (lambda: PGD(restarts=0), "restarts=0"),
        (lambda: PGD(restarts=2, random_start=False), "one attack, repeated"),
        (lambda: APGD(rho=2.0), "rho=2"),
        (lambda: right_under([FGSM()], build(CrossEntropy), Batch({"ids": torch.zeros(2, 3)}, torch.zeros(2).long()),
                             torch.arange(2)), "must be a float tensor; it is a mapping. Evaluate without"),
        (lambda: right_under([FGSM()], build(CrossEntropy), Batch(3 * torch.ones(2, 64), torch.zeros(2).long()),
                             torch.arange(2)), "expects pixels"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_attack_must_say_how_it_perturbs():
    with pytest.raises(NotImplementedError, match="Attack must say how"):
        Attack().survivors(lambda x: x, torch.zeros(1, 10), torch.zeros(1).long(), torch.zeros(1).long())
