import math

import pytest
import torch
from testkit.script import assert_same, batches, cross_entropy, make, onehot, replay, softmax, train
from testkit.training import TinyConv

from lightning_perturb.core import Batch
from lightning_perturb.methods import CrossEntropy, MixPert

# three steps of .08 reach any radius below, so that each sample's own radius counts
PLAIN = {"random_start": False, "steps": 3, "step_size": 0.08}


def largest(loss: torch.Tensor, share: float) -> torch.Tensor:
    """The hard set by rank, one sample at a time."""
    order = sorted(range(len(loss)), key=lambda i: -float(loss[i]))[: round(share * len(loss))]
    return torch.tensor([i in order for i in range(len(loss))])


def attack(logits, x, y, radius, step=0.08, steps=3):
    delta = torch.zeros_like(x)
    for _ in range(steps):
        z = (x + delta).requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(logits(z), y).sum(), z)
        delta = torch.maximum(torch.minimum(delta + step * torch.sign(slope), radius), -radius)
        delta = torch.clamp(x + delta, 0, 1) - x
    return delta.detach()


def raised(u, y, eta):
    """u + η (e_y - p) with the step as a constant."""
    return u + eta * (onehot(y) - softmax(u.detach()))


@pytest.mark.parametrize("eta", [0.5, 4.0])
@pytest.mark.parametrize("share", [0.2, 0.45, 1.0])
def test_the_positive_part_by_hand(share, eta):
    def loss(logits, batch, *_):
        x, y, _ = batch
        u = logits(x)
        hard = largest(cross_entropy(u, y).detach(), share)
        return cross_entropy(torch.where(hard[:, None], raised(u, y, eta), u), y).mean()

    assert_same(train(make(MixPert, eta=eta, share=share)), replay(loss))


@pytest.mark.parametrize(
    ("clean_weight", "clean_samples"), [(0.0, "attacked"), (0.4, "attacked"), (0.4, "all")], ids=str
)
@pytest.mark.parametrize("bounds", ["shared", "per_sample"])
def test_both_parts_by_hand(bounds, clean_weight, clean_samples):
    eta, eps = 2.0, 0.1

    def loss(logits, batch, *_):
        x, y, _ = batch
        clean = cross_entropy(logits(x), y).detach()
        hard = largest(clean, 0.4)
        tau = clean[hard].min()
        one, two = torch.full_like(clean, eta), torch.full_like(clean, eps)
        if bounds == "per_sample":
            one, two = eta * clean / tau, eps * torch.clamp(2 - clean / tau, min=0)
        delta = attack(logits, x, y, two[:, None])
        positive = cross_entropy(raised(logits(x), y, one[:, None]), y)
        negative = cross_entropy(logits(x + delta), y)
        if clean_weight:
            plain = clean_weight * cross_entropy(logits(x), y)
            negative = (1 - clean_weight) * negative + plain
            if clean_samples == "all":
                positive = (1 - clean_weight) * positive + plain
        return torch.where(hard, positive, negative).mean()

    mixed = {"clean_weight": clean_weight, "clean_samples": clean_samples}
    module = make(MixPert, eta=eta, eps2=eps, share=0.4, bounds=bounds, **mixed, **PLAIN)
    assert_same(train(module), replay(loss))


def test_the_clean_loss_of_all_without_an_attack():
    def loss(logits, batch, *_):
        x, y, _ = batch
        plain = cross_entropy(logits(x), y)
        moved = torch.where(largest(plain.detach(), 0.4), cross_entropy(raised(logits(x), y, 2.0), y), plain)
        return (0.6 * moved + 0.4 * plain).mean()

    options = {"eta": 2.0, "share": 0.4, "clean_weight": 0.4, "clean_samples": "all"}
    assert_same(train(make(MixPert, **options)), replay(loss))


@pytest.mark.parametrize("tau", [0.0, 1.3, 100.0])
def test_a_threshold_by_value(tau):
    def loss(logits, batch, *_):
        x, y, _ = batch
        u = logits(x)
        hard = cross_entropy(u, y) >= tau
        return cross_entropy(torch.where(hard[:, None], raised(u, y, 2.0), u), y).mean()

    assert_same(train(make(MixPert, eta=2.0, threshold="value", tau=tau)), replay(loss))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_threshold_by_the_quantile_of_the_epoch_before(share):
    last: dict[int, dict[int, float]] = {}
    chosen = []

    def loss(logits, batch, epoch, number):
        x, y, index = batch
        u = logits(x)
        plain = cross_entropy(u, y)
        last.setdefault(epoch, {}).update(zip(index.tolist(), plain.detach().tolist(), strict=True))
        if epoch == 0:
            hard = largest(plain, share)
        else:
            before = sorted(last[epoch - 1].values(), reverse=True)[: round(share * 15)]
            hard = plain >= min(before) if before else torch.zeros(5, dtype=torch.bool)
        chosen.append(int(hard.sum()))
        return cross_entropy(torch.where(hard[:, None], raised(u, y, 2.0), u), y).mean()

    module = make(MixPert, eta=2.0, share=share, threshold="epoch_quantile")
    assert_same(train(module, epochs=3), replay(loss, epochs=3))
    expected = torch.tensor([last[2][i] for i in range(15)])
    torch.testing.assert_close(module.last_loss[:15].float(), expected)
    assert set(chosen[:3]) == {round(share * 5)}
    if share:
        assert set(chosen[3:]) != {round(share * 5)}, "quantiles that only repeat the share of each batch say nothing"


@pytest.mark.parametrize(
    "options",
    [{"eta": 0.0}, {"share": 0.0}, {"threshold": "value", "tau": 1e9}, {"eta": 0.0, "eps2": 0.1, "share": 1.0}],
)
def test_without_a_perturbation_it_is_cross_entropy(options):
    assert_same(train(make(MixPert, **options)), train(make(CrossEntropy)))


def forwards(**options) -> tuple[list[bool], list[bool]]:
    """The network's mode at each of its calls in a step, and whether gradients were on."""
    net = TinyConv(norm=True)
    modes, grads = [], []

    def note(module, _):
        modes.append(module.training)
        grads.append(torch.is_grad_enabled())

    net.register_forward_pre_hook(note)
    module = MixPert(net, 10, clip=False, steps=3, **options)
    batch = Batch(torch.rand(8, 1, 8, 8), torch.arange(8), torch.arange(8))
    module.training_step(batch, 0)
    tracked = int(net.body[1].num_batches_tracked)
    assert tracked == sum(modes)
    return modes, grads


@pytest.mark.filterwarnings("ignore:.*self.log.*")
def test_passes_over_the_network():
    # positive part alone: the training forward ranks by itself
    assert forwards() == ([True], [True])
    assert forwards(threshold="value", tau=2.0)[0] == [True]
    assert forwards(threshold="epoch_quantile")[0] == [True]
    # one pass to rank, three to attack, one to train
    assert forwards(eps2=0.1) == ([False] * 4 + [True], [False] + [True] * 4)
    assert forwards(eps2=0.1, rank_mode="train")[0] == [True] + [False] * 3 + [True]
    assert forwards(eps2=0.1, clean_weight=0.4)[0] == [False] * 4 + [True] * 2
    # all are hard: nothing to attack
    assert forwards(eps2=0.1, share=1.0)[0] == [False, True]


def test_only_easy_samples_are_attacked_and_only_hard_ones_lifted():
    x, y, index = batches()[0]
    module = make(MixPert, eps2=0.1, share=0.4, **PLAIN)
    batch = module.perturb_input(Batch(x, y, index))
    hard = batch.extra["hard"]
    assert int(hard.sum()) == 2
    moved = (batch.x != x).any(1)
    assert torch.equal(moved, ~hard)
    outputs = module.outputs(module.net, batch)
    lifted = (module.perturb_logits(outputs["logits"], outputs, batch) != outputs["logits"]).any(1)
    assert torch.equal(lifted, hard)
    assert torch.equal(batch.extra["perturbation_norm"] > 0, hard)


def test_the_step_lowers_the_loss_and_keeps_its_bound():
    x, y, index = batches()[0]
    module = make(MixPert, eta=3.0, share=1.0)
    batch = Batch(x, y, index)
    u = module.net(x)
    v = module.perturb_logits(u, {"logits": u}, batch) - u
    assert float(v.abs().max()) <= 3.0
    assert bool((cross_entropy(u + v, y) < cross_entropy(u, y)).all())


def test_the_hard_set_and_its_threshold():
    module = make(MixPert, share=0.4)
    hard, tau = module.hard_samples(torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0]))
    assert hard.tolist() == [False, True, False, True, False]
    assert float(tau) == 4.0
    hard, tau = make(MixPert, share=0.0).hard_samples(torch.tensor([1.0, 5.0]))
    assert not hard.any()
    assert math.isinf(float(tau))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": -1.0}, "eta="),
        ({"share": 1.5}, "share=1.5 is not a share"),
        ({"threshold": "x"}, "threshold='x'"),
        ({"threshold": "value"}, "tau=None contradict"),
        ({"tau": 1.0}, "tau=1.0 contradict"),
        ({"bounds": "x"}, "bounds='x'"),
        ({"threshold": "value", "tau": -1.0}, "tau=-1"),
        ({"clean_weight": 0.4}, "clean_weight=0.4 .* eps2=0"),
        ({"clean_samples": "x"}, "clean_samples='x'"),
        ({"clean_weight": 2.0, "eps2": 0.1}, "clean_weight=2"),
        ({"rank_mode": "x"}, "rank_mode='x'"),
        ({"eps2": -0.1}, "eps2="),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(MixPert, **options)


def test_names_that_belong_to_the_parent_are_refused():
    with pytest.raises(ValueError, match=r"eps=.*its radius is eps2"):
        MixPert(torch.nn.Linear(4, 3), 3, eps=0.1)
    with pytest.raises(ValueError, match="tau=0 and bounds='per_sample'"):
        MixPert(torch.nn.Linear(4, 3), 3, threshold="value", tau=0.0, bounds="per_sample")
