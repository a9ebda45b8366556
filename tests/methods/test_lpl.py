"""LPL against Algorithm 2 written out class by class, its options, limits and edge cases."""

import numpy as np
import pytest
import torch
from testkit.script import CLASSES, assert_same, batches, cross_entropy, make, onehot, replay, softmax, train
from testkit.training import Recipe, fit, tiny_data, trainer_of
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_perturb.core import Batch
from lightning_perturb.data import Exponential
from lightning_perturb.methods import (
    ISDA,
    ISDALPL,
    LPL,
    CrossEntropy,
    LogitAdjustedLPL,
    LogitAdjustment,
    PostHocLogitAdjustment,
)

COUNTS = [2, 9, 4, 5]
# by hand: class 1 has the most samples, then 3, 2, 0
RANK = {1: 1, 3: 2, 2: 3, 0: 4}


def confidence_of(u, y):
    """{class: mean probability of the given class}, classes of the batch alone."""
    p = softmax(u).detach()
    return {c: float(p[y == c, c].mean()) for c in y.unique().tolist()}


def walked(u, y, sign, steps, alpha, norm="row"):
    """u + δ, class by class [Algorithm 1]; signs are a dict, or a function of the logits that is asked each time."""
    moved = {c: torch.zeros(CLASSES, dtype=u.dtype) for c in y.unique().tolist()}
    final = dict(moved)
    for k in range(max(steps.values(), default=0)):
        now = u + torch.stack([moved[int(c)] for c in y])
        signs = sign(now) if callable(sign) else sign
        rows = {c: (softmax(now)[y == c] - onehot(y[y == c])).mean(0) for c in moved}
        for c, row in rows.items():
            column = torch.stack([other[c] for other in rows.values()])
            length = {"row": row, "column": column, "none": torch.ones(1)}[norm].norm()
            moved[c] = moved[c] + alpha * signs[c] * row / length
            if k < steps[c]:
                final[c] = moved[c]
    return u + torch.stack([final[int(c)] for c in y])


def balanced_plan(q, tau, eps, delta, alpha, side=False):
    """Signs and numbers of steps from confidences [lpl 27, 33]."""
    sign = {c: 1.0 if v <= tau else -1.0 for c, v in q.items()}
    far = {s: max([abs(tau - v) for c, v in q.items() if sign[c] == s], default=1.0) for s in (1.0, -1.0)}
    bound = {c: eps + delta * abs(tau - v) / (far[sign[c]] if side else 1.0) for c, v in q.items()}
    return sign, {c: int(np.floor(b / alpha + 1e-6)) for c, b in bound.items()}


# the whole training by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["row", "none", "column"])
def test_balanced_by_hand(norm):
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        q = confidence_of(u, y)
        sign, steps = balanced_plan(q, np.mean(list(q.values())), 0.5, 2.0, 0.1)
        return cross_entropy(u + (walked(u, y, sign, steps, 0.1, norm) - u).detach(), y).mean()

    module = make(LPL, eps=0.5, delta_eps=2.0, alpha=0.1, grad_norm=norm)
    assert_same(train(module), replay(loss))


def test_side_max_and_a_threshold_of_ones_own_by_hand():
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        sign, steps = balanced_plan(confidence_of(u, y), 0.3, 0.0, 1.0, 0.1, side=True)
        return cross_entropy(u + (walked(u, y, sign, steps, 0.1) - u).detach(), y).mean()

    module = make(LPL, threshold=0.3, eps=0.0, delta_eps=1.0, alpha=0.1, bound_norm="side_max")
    assert_same(train(module), replay(loss))


def test_absent_classes_as_zeros_by_hand():
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        q = {**dict.fromkeys(range(CLASSES), 0.0), **confidence_of(u, y)}
        sign, steps = balanced_plan(q, sum(q.values()) / CLASSES, 0.2, 1.0, 0.1, side=True)
        steps = {c: steps[c] for c in y.unique().tolist()}
        return cross_entropy(u + (walked(u, y, sign, steps, 0.1) - u).detach(), y).mean()

    assert min(len(batch[1].unique()) for batch in batches()) < CLASSES
    module = make(LPL, absent="zero", eps=0.2, delta_eps=1.0, alpha=0.1, bound_norm="side_max")
    assert_same(train(module), replay(loss))


def test_a_split_in_every_step_and_gradients_through_the_steps_by_hand():
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]

        def split(now):
            q = confidence_of(now, y)
            return balanced_plan(q, np.mean(list(q.values())), 0.0, 1.0, 1.0)[0]

        steps = dict.fromkeys(y.unique().tolist(), 5)
        return cross_entropy(walked(u, y, split, steps, 0.3), y).mean()

    module = make(LPL, eps=1.5, delta_eps=0.0, alpha=0.3, freeze_split=False, detach=False)
    assert_same(train(module), replay(loss))
    assert not torch.allclose(train(make(LPL, eps=1.5, delta_eps=0.0, alpha=0.3)), replay(loss), atol=1e-3)


@pytest.mark.parametrize("prior", [False, True])
def test_long_tail_by_hand(prior):
    pi = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    bound = {1: 0.6 * 1.0, 3: 0.6 * 5 / 9, 2: 2 / 4, 0: 1.0}
    plan = {c: (-1.0 if RANK[c] <= 2 else 1.0, int((0.1 + 2.0 * bound[c]) / 0.25)) for c in RANK}

    def loss(logits, batch, *_):
        u, y = logits(batch[0]) + (1.5 * pi.log() if prior else 0), batch[1]
        here = y.unique().tolist()
        end = walked(u, y, {c: plan[c][0] for c in here}, {c: plan[c][1] for c in here}, 0.25)
        return cross_entropy(u + (end - u).detach(), y).mean()

    options = {"split": "frequency", "eps": 0.1, "delta_eps": 2.0, "alpha": 0.25, "head": 0.5, "head_scale": 0.6}
    module = make(LogitAdjustedLPL, tau=1.5, class_counts=COUNTS, **options) if prior else None
    module = module or make(LPL, class_counts=COUNTS, **options)
    assert_same(train(module), replay(loss))
    assert module.sign.tolist() == [1, -1, 1, -1]
    assert module.steps.tolist() == [plan[c][1] for c in range(CLASSES)]


class Kept:
    """The confidence of classes over batches, one class at a time."""

    def __init__(self, stat):
        self.stat, self.values, self.seen = stat, {}, {}

    def now(self, u, y):
        here = confidence_of(u, y)
        if self.stat == "epoch":
            return {**here, **self.values}
        return {**self.values, **{c: self.moved(c, v) for c, v in here.items()}}

    def moved(self, c, v):
        return 0.8 * self.values[c] + 0.2 * v if c in self.values else v

    def after(self, u, batch, epoch, number):
        here, y = confidence_of(u, batch[1]), batch[1]
        if self.stat == "ema":
            self.values.update({c: self.moved(c, v) for c, v in here.items()})
            return
        for c, v in here.items():
            total, count = self.seen.get(c, (0.0, 0))
            self.seen[c] = total + v * int((y == c).sum()), count + int((y == c).sum())
        if number == 2:
            self.values.update({c: total / count for c, (total, count) in self.seen.items()})
            self.seen = {}


@pytest.mark.parametrize("stat", ["ema", "epoch"])
def test_confidence_over_batches_by_hand(stat):
    kept = Kept(stat)

    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        q = kept.now(u.detach(), y)
        sign, steps = balanced_plan(q, np.mean(list(q.values())), 0.3, 2.0, 0.1)
        here = y.unique().tolist()
        return cross_entropy(u + (walked(u, y, sign, {c: steps[c] for c in here}, 0.1) - u).detach(), y).mean()

    options = {"ema_decay": 0.8} if stat == "ema" else {}
    module = make(LPL, q_stat=stat, eps=0.3, delta_eps=2.0, alpha=0.1, **options)
    # the state is single precision while the module is built, confidence is compared to it
    assert_same(train(module, epochs=3), replay(loss, epochs=3, after=kept.after))


def test_ratios_of_confidence_by_hand():
    def loss(logits, batch, *_):
        u, y = logits(batch[0]), batch[1]
        q = confidence_of(u, y)
        order = sorted(q, key=RANK.__getitem__)
        sign = {c: -1.0 if RANK[c] <= 2 else 1.0 for c in q}
        ratio = {c: q[c] / q[order[0]] if sign[c] < 0 else q[order[-1]] / q[c] for c in q}
        steps = {c: int(2.0 * min(r, 1.0) / 0.1 + 1e-6) for c, r in ratio.items()}
        return cross_entropy(u + (walked(u, y, sign, steps, 0.1) - u).detach(), y).mean()

    options = {"split": "frequency", "bound_stat": "confidence", "delta_eps": 2.0, "alpha": 0.1}
    assert_same(train(make(LPL, class_counts=COUNTS, **options)), replay(loss))


# limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0.0, "delta_eps": 0.0},
        {"eps": 0.0, "delta_eps": 0.0, "split": "frequency"},
        {"eps": 0.0, "delta_eps": 0.0, "q_stat": "epoch", "detach": False, "rounding": "round"},
    ],
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_bounds_of_zero_are_cross_entropy_exactly(options, precision):
    plain = Recipe(CrossEntropy, trainer={"max_epochs": 1, "precision": precision})
    expected = fit(plain).lightning_module.net.state_dict()
    found = fit(Recipe(LPL, options, trainer=plain.trainer)).lightning_module.net.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_la_lpl_has_both_as_its_limits():
    la = make(LogitAdjustment, tau=1.5, class_counts=COUNTS)
    lpl = make(LPL, split="frequency", class_counts=COUNTS)
    both = {"split": "frequency", "class_counts": COUNTS}
    assert torch.equal(train(make(LogitAdjustedLPL, tau=1.5, eps=0.0, delta_eps=0.0, **both)), train(la))
    assert torch.equal(train(make(LogitAdjustedLPL, tau=0.0, **both)), train(lpl))


def test_a_high_threshold_raises_every_loss_and_a_low_one_lowers_them():
    u, y = torch.randn(20, CLASSES, dtype=torch.float64), torch.arange(20) % CLASSES
    for threshold, sign in ((2.0, 1), (-1.0, -1)):
        module = make(LPL, threshold=threshold, eps=0.5, delta_eps=0.0, alpha=0.1)
        change = cross_entropy(module.perturb_logits(u, {}, Batch(u, y)), y) - cross_entropy(u, y)
        assert all(change[y == c].mean() * sign > 0 for c in range(CLASSES))


def test_published_steps_of_cifar10_lt():
    counts = Exponential(100.0).class_counts(np.full(10, 5000))
    module = LPL(
        nn.Linear(2, 10), 10, split="frequency", head=4, head_scale=0.6, rounding="round", class_counts=counts.tolist()
    )
    module.class_counts.copy_(torch.as_tensor(counts))
    module.use_counts(module.known_counts().double())
    assert module.steps.tolist() == [6, 4, 2, 1, 1, 1, 2, 4, 6, 10]
    assert module.sign.tolist() == [-1] * 4 + [1] * 6


# edge cases -------------------------------------------------------------------------------------------------------

ALL = [
    {},
    {"q_stat": "ema", "absent": "zero"},
    {"freeze_split": False, "detach": False, "grad_norm": "column"},
    {"split": "frequency"},
    {"split": "frequency", "bound_stat": "confidence", "q_stat": "epoch", "grad_norm": "none"},
]


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("labels", [[1], [2, 2, 2], [0, 3, 3], [0, 1, 2, 3]])
def test_batches_of_few_classes_and_one_sample(options, labels):
    module = make(LPL, class_counts=[5, 5, 5, 5], **options)
    y = torch.tensor(labels)
    loader = DataLoader([(torch.rand(len(y), 6, dtype=torch.float64), y, torch.arange(len(y)))], batch_size=None)
    trainer = trainer_of(max_epochs=2, precision="64-true")
    trainer.fit(module, loader)
    assert float(trainer.callback_metrics["train/loss"]) > 0


@pytest.mark.parametrize("options", ALL)
def test_two_classes(options):
    net = nn.Linear(3, 2)
    module = LPL(net, 2, class_counts=[4, 4], **options)
    batch = (torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 1]))
    trainer_of(max_epochs=2).fit(module, DataLoader([batch], batch_size=None))
    assert torch.isfinite(net.weight).all()


def test_ties_in_frequency_are_ordered_by_id():
    module = make(LPL, split="frequency", head=2, class_counts=[3, 7, 3, 3])
    train(module, epochs=1)
    assert module.sign.tolist() == [-1, -1, 1, 1]


def test_a_label_of_a_class_that_the_epoch_before_did_not_see():
    seen = []

    class Watched(LPL):
        def _confidence(self, logits, target, batch):
            found = super()._confidence(logits, target, batch)
            seen.append((target.unique().tolist(), *(part.clone() for part in found)))
            return found

    module = make(Watched, q_stat="epoch", eps=0.2, delta_eps=0.0, alpha=0.1)
    x = torch.rand(4, 6, dtype=torch.float64)
    first, second = (x, torch.tensor([0, 0, 1, 1])), (x, torch.tensor([0, 0, 3, 3]))
    trainer_of(max_epochs=1, precision="64-true").fit(module, DataLoader([first], batch_size=None))
    module.start_epoch()
    module.perturb_logits(module.net(x), {}, Batch(*second))
    (_, _, _), (_, confidence, counted) = seen
    assert counted.tolist() == [1, 1, 0, 1]
    assert confidence[3] == pytest.approx(confidence_of(module.net(x), second[1])[3])
    assert confidence[0] != pytest.approx(confidence_of(module.net(x), second[1])[0])


def test_counts_that_are_missing_or_zero_are_named():
    plain = DataLoader(batches(), batch_size=None)
    with pytest.raises(ValueError, match=r"LPL needs the number of training samples.*class_counts"):
        trainer_of(max_epochs=1, precision="64-true").fit(make(LPL, split="frequency"), plain)
    trainer_of(max_epochs=1, precision="64-true").fit(make(LPL), plain)
    with pytest.raises(ValueError, match=r"LogitAdjustedLPL needs the number"):
        trainer_of(max_epochs=1, precision="64-true").fit(make(LogitAdjustedLPL), plain)
    data = tiny_data(samples=60, noise=0.0)
    data.setup("fit")
    data.given_labels[data.given_labels == 4] = 5
    for method, options in ((LPL, {"split": "frequency"}), (LogitAdjustment, {}), (PostHocLogitAdjustment, {})):
        with pytest.raises(ValueError, match=rf"{method.__name__} needs .* none of the classes \[4\]"):
            fit(Recipe(method, options), data=data)
    fit(Recipe(LPL, trainer={"max_epochs": 1}), data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "mean"}, "split='mean' is unknown"),
        ({"head": 1.5}, "head=1.5 is neither a share below 1 nor a count of the 4"),
        ({"head": 5}, "head=5 is neither"),
        ({"head": -0.1}, "head=-0.1 is neither"),
        ({"eps": -1.0}, "eps=-1.0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"eps": 0.01, "delta_eps": 0.01, "alpha": 0.03}, r"alpha=0.03 is above every bound.*\(0.02\)"),
        ({"split": "frequency", "threshold": 0.4}, "threshold=0.4 contradicts split='frequency'"),
        ({"split": "frequency", "freeze_split": False}, "freeze_split=False contradicts split='frequency'"),
        ({"split": "frequency", "q_stat": "ema"}, "q_stat='ema' contradicts bound_stat='count'"),
        ({"head_scale": 0.6}, "head_scale=0.6 contradicts split='confidence'"),
        ({"bound_stat": "confidence"}, "bound_stat='confidence' contradicts split='confidence'"),
        ({"ema_decay": 0.5}, "ema_decay=0.5 contradicts q_stat='batch'"),
        ({"q_stat": "ema", "sync_stats": False}, "sync_stats=False contradicts q_stat='ema'"),
        ({"q_stat": "epoch", "freeze_split": False}, "freeze_split=False contradicts q_stat='epoch'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        make(LPL, **options)


def test_eight_thousand_classes_need_no_square_matrix():
    # iNaturalist 2018: a C x C matrix would take 265 MB
    classes, size = 8142, 64
    torch.manual_seed(0)
    u = torch.randn(size, classes, requires_grad=True)
    y = torch.randint(classes, (size,))
    counts = (1000 * 0.002 ** (torch.arange(classes) / (classes - 1))).int().clamp(min=2).tolist()
    for options in ({}, {"split": "frequency", "class_counts": counts}, {"q_stat": "epoch", "bound_norm": "side_max"}):
        module = LPL(nn.Linear(1, classes), classes, **options)
        module.class_counts.copy_(torch.tensor(counts))
        if module.needs_class_counts:
            module.use_counts(module.known_counts().double())
        with torch.profiler.profile(profile_memory=True) as profile:
            loss = F.cross_entropy(module.perturb_logits(u, {}, Batch(u, y)), y)
            loss.backward()
        largest = max((event.self_cpu_memory_usage for event in profile.events()), default=0)
        assert largest < classes * classes
        assert loss.isfinite()


# beside other methods -------------------------------------------------------------------------------------------------


def slow(params):
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def test_rare_classes_are_found_more_often():
    recalls = {}
    for method, options in ((CrossEntropy, {}), (LogitAdjustment, {}), (LPL, {"split": "frequency", "delta_eps": 3.0})):
        data = tiny_data(samples=1400, noise=0.0, test_samples=390, imbalance=Exponential(50.0), batch_size=32)
        options = {**options, "optimizer": slow, "lr_scheduler": None}
        trainer = fit(Recipe(method, options, trainer={"max_epochs": 10}), data=data)
        pred = torch.cat([batch["pred"] for batch in trainer.predict(trainer.lightning_module, data)])
        _, y = data._test
        rare = [(pred[y == c] == c).float().mean() for c in (8, 9)]
        recalls[method] = float(sum(rare) / 2)
    assert recalls[LogitAdjustment] > recalls[CrossEntropy] + 0.1
    assert recalls[LPL] > recalls[CrossEntropy] + 0.1


def test_isda_and_lpl_cooperate():
    # without bounds ISDA, without strength LPL; together δ starts from ISDA's logits
    isda = {"lam": 0.7, "ramp": "constant"}
    none = {"eps": 0.0, "delta_eps": 0.0}
    assert torch.equal(train(make(ISDALPL, **isda, **none)), train(make(ISDA, **isda)))
    assert torch.equal(train(make(ISDALPL, lam=0.0)), train(make(LPL)))
    both = make(ISDALPL, **isda)
    train(both)
    x, y, index = batches()[0]
    batch = Batch(x, y, index)
    outputs = both.outputs(both.net, batch)
    raised = ISDA.perturb_logits(both, outputs["logits"], outputs, batch.copy())
    expected = make(LPL).perturb_logits(raised, {}, batch.copy())
    torch.testing.assert_close(both.perturb_logits(outputs["logits"], outputs, batch.copy()), expected)
    assert not torch.allclose(raised, outputs["logits"])
