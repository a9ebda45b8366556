"""LDAM, large-margin softmax, ArcFace: logits made of features and class weights, trained by hand."""

import math

import pytest
import torch
from testkit.meta import arrays, mlp, sgd
from testkit.meta import batches as meta_batches
from testkit.meta import fit as meta_fit
from testkit.script import CLASSES, RATE, assert_same, batches, cross_entropy, make, onehot, replay, train
from testkit.training import Recipe, fit, tiny_data, trainer_of
from torch import nn
from torch.utils.data import DataLoader

from lightning_perturb.core import Batch
from lightning_perturb.data import Exponential
from lightning_perturb.methods import LDAM, LDAMDRW, ArcFace, CategoryArcFace, CrossEntropy, LargeMarginSoftmax

COUNTS = [16, 1, 81, 3]
DRAWN = torch.tensor([[0.4, 0.3, 0.9, 0.1, 0.8, 0.7]], dtype=torch.float64)


def weight_of(logits):
    """W [C, A] of the hand-written linear network, with its history."""
    bias = logits(torch.zeros(1, 6, dtype=torch.float64))
    return (logits(torch.eye(6, dtype=torch.float64)) - bias).T


def angles(logits, x):
    w = weight_of(logits)
    return torch.stack([x @ row / (x.norm(dim=1) * row.norm()) for row in w], 1)


# LDAM -------------------------------------------------------------------------------------------------------------


def margins(largest):
    return torch.tensor([largest * n**-0.25 for n in COUNTS], dtype=torch.float64)


def test_ldam_by_hand():
    def loss(logits, batch, *_):
        own = onehot(batch[1]) * margins(0.4)
        return cross_entropy(20 * (angles(logits, batch[0]) - own), batch[1]).mean()

    module = make(LDAM, class_counts=COUNTS, margin=0.4, scale=20.0)
    assert_same(train(module), replay(loss), tolerance=1e-5)
    # the bias plays no part, also in evaluation
    x = batches()[0][0]
    w = module.net.weight
    expected = 20 * (x @ w.T) / (x.norm(dim=1)[:, None] * w.norm(dim=1))
    torch.testing.assert_close(module.eval().evaluation_logits(x), expected)
    torch.testing.assert_close(module(x), expected)


def test_ldam_as_the_equation_is_written():
    def loss(logits, batch, *_):
        return cross_entropy(logits(batch[0]) - onehot(batch[1]) * margins(2.0), batch[1]).mean()

    module = make(LDAM, class_counts=COUNTS, margin=2.0, cosine=False)
    assert_same(train(module), replay(loss), tolerance=1e-6)
    x = batches()[0][0]
    assert torch.equal(module.eval()(x), module.net(x))


def test_ldam_drw_by_hand():
    weights = torch.tensor([1 / sum(0.9**k for k in range(n)) for n in COUNTS], dtype=torch.float64)
    weights = weights * CLASSES / weights.sum()

    def loss(logits, batch, epoch, _):
        own = onehot(batch[1]) * margins(0.5)
        losses = cross_entropy(30 * (angles(logits, batch[0]) - own), batch[1])
        # divided by the weights of the batch, as the authors do
        own = weights[batch[1]]
        return (losses * own).sum() / own.sum() if epoch >= 1 else losses.mean()

    module = make(LDAMDRW, class_counts=COUNTS, beta=0.9, from_epoch=1)
    assert_same(train(module), replay(loss), tolerance=1e-5)
    assert make(LDAMDRW).from_epoch == 160


def test_published_margins_of_cifar100_lt():
    counts = Exponential(100.0).class_counts(torch.full((100,), 500).numpy())
    module = LDAM(nn.Linear(2, 100), 100, class_counts=counts.tolist())
    module.use_counts(torch.as_tensor(counts).double())
    assert module.margins[0] == pytest.approx(0.158, abs=1e-3)
    assert module.margins[99] == pytest.approx(0.5)


# large-margin softmax ---------------------------------------------------------------------------------------------


def psi(cosine, m):
    theta = torch.acos(cosine)
    k = (m * theta.detach() / math.pi).floor()
    return (-1.0) ** k * torch.cos(m * theta) - 2 * k


@pytest.mark.parametrize("m", [2, 4])
def test_large_margin_by_hand(m):
    def loss(logits, batch, epoch, number):
        beta = 5.0 * 0.5 ** (3 * epoch + number)
        x, w, y = batch[0], weight_of(logits), batch[1]
        plain = x @ w.T
        length = x.norm(dim=1) * w.norm(dim=1)[y]
        own = onehot(y)
        lowered = (length * psi((plain * own).sum(1) / length, m) + beta * (plain * own).sum(1)) / (1 + beta)
        return cross_entropy(plain * (1 - own) + own * lowered[:, None], y).mean()

    module = make(LargeMarginSoftmax, m=m, beta=5.0, beta_decay=0.5)
    found = train(module)
    assert_same(found, replay(loss), tolerance=1e-7)
    assert float(module.blend) == 5.0 * 0.5**6
    x = batches()[0][0]
    torch.testing.assert_close(module.eval().evaluation_logits(x), x @ module.net.weight.T)


# ArcFace ----------------------------------------------------------------------------------------------------------


def shifted(cosine, y, m):
    theta = torch.acos(cosine)
    margin = torch.as_tensor(m, dtype=torch.float64)
    return torch.cos(theta + onehot(y) * (margin[:, None] if margin.ndim else margin))


def test_arcface_by_hand():
    def loss(logits, batch, *_):
        return cross_entropy(8 * shifted(angles(logits, batch[0]), batch[1], 0.3), batch[1]).mean()

    module = make(ArcFace, margin=0.3, scale=8.0)
    assert_same(train(module), replay(loss), tolerance=1e-6)
    x = batches()[0][0]
    w = module.net.weight
    expected = 8 * (x @ w.T) / (x.norm(dim=1)[:, None] * w.norm(dim=1))
    torch.testing.assert_close(module.eval().evaluation_logits(x), expected)


def test_arcface_with_lengths_by_hand():
    # the scale that the equation writes [tax 48]
    def loss(logits, batch, *_):
        x, y = batch[0], batch[1]
        lengths = x.norm(dim=1) * weight_of(logits).norm(dim=1)[y]
        return cross_entropy(lengths[:, None] * shifted(angles(logits, x), y, 0.3), y).mean()

    module = make(ArcFace, margin=0.3, scale=0.0)
    assert_same(train(module), replay(loss), tolerance=1e-6)
    x = batches()[0][0]
    w = module.net.weight
    expected = (x @ w.T) / w.norm(dim=1) * w.norm(dim=1).mean()
    torch.testing.assert_close(module.eval().evaluation_logits(x), expected)


def adam(params):
    return torch.optim.Adam(params, lr=0.01)


@pytest.mark.parametrize("method", [ArcFace, LDAM, LargeMarginSoftmax])
def test_they_learn_with_an_optimizer_that_does_not_mind_their_scale(method):
    data = tiny_data(samples=500, noise=0.0, test_samples=300, batch_size=32)
    trainer = fit(Recipe(method, {"optimizer": adam, "lr_scheduler": None}, trainer={"max_epochs": 6}), data=data)
    assert trainer.test(trainer.lightning_module, data, verbose=False)[0]["test/acc"] > 0.8


def category(**options):
    torch.manual_seed(0)
    return CategoryArcFace(mlp(), CLASSES, scale=4.0, **options).double()


def test_category_margins_have_an_exact_hypergradient():
    module, lr = category(margin=0.3), 0.7
    batch, meta = meta_batches()
    theta = module.group_margins
    start = dict(module.net.named_parameters())

    def cosines(parameters, x):
        h = torch.tanh(x @ parameters["0.weight"].T + parameters["0.bias"])
        w = parameters["3.weight"]
        return (h @ w.T) / (h.norm(dim=1)[:, None] * w.norm(dim=1))

    inner = cross_entropy(4 * shifted(cosines(start, batch.x), batch.y, theta[batch.y]), batch.y).mean()
    slopes = torch.autograd.grad(inner, list(start.values()), create_graph=True, allow_unused=True)
    ahead = {n: p if g is None else p - lr * g for (n, p), g in zip(start.items(), slopes, strict=True)}
    outer = cross_entropy(4 * cosines(ahead, meta.x), meta.y).mean()
    (expected,) = torch.autograd.grad(outer, theta)
    (found,) = module.hypergradient(batch, meta, lr).gradients
    assert expected.norm() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_category_margins_are_those_of_class_or_group():
    module = category()
    with torch.no_grad():
        module.group_margins.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    batch, _ = meta_batches()
    outputs = module.outputs(module.net, batch)
    plain = ArcFace(module.net, CLASSES, scale=1.0).double()
    cosine = plain.run(plain.net, batch.x)
    expected = cross_entropy(4 * shifted(cosine, batch.y, module.group_margins.detach()[batch.y]), batch.y).mean()
    torch.testing.assert_close(module.loss(outputs, batch), expected)
    grouped = category(group_key="tone", num_groups=2)
    with torch.no_grad():
        grouped.group_margins.copy_(torch.tensor([0.1, 0.5]))
    tones = torch.arange(len(batch.y)) % 2
    batch.extra["tone"] = tones
    margin = torch.tensor([0.1, 0.5], dtype=torch.float64)[tones]
    expected = cross_entropy(4 * shifted(cosine, batch.y, margin), batch.y).mean()
    torch.testing.assert_close(grouped.loss(grouped.outputs(grouped.net, batch), batch), expected)
    with pytest.raises(ValueError, match=r"group_key='tone' is no tensor of the batch"):
        grouped.loss(outputs, Batch(batch.x, batch.y))
    with pytest.raises(ValueError, match=r"group_key='tone' and num_groups=None belong together"):
        category(group_key="tone")


def test_the_outer_loss_reads_cosines():
    module = category()
    _, meta = meta_batches()
    expected = cross_entropy(module.eval()(meta.x), meta.y).mean()
    torch.testing.assert_close(module.train().meta_loss(module.net, meta), expected)


# all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [LDAM, ArcFace, LargeMarginSoftmax])
def test_warm_up_trains_the_networks_own_logits_and_evaluation_reads_the_methods(method):
    counts = {"class_counts": COUNTS} if method is LDAM else {}
    module = make(method, warmup_epochs=2, **counts)
    assert torch.equal(train(module), train(make(CrossEntropy)))
    x = batches()[0][0]
    module.eval()
    assert not torch.allclose(module.evaluation_logits(x), module.net(x))


@pytest.mark.parametrize("method", [LDAM, ArcFace, LargeMarginSoftmax])
def test_warm_up_is_validated_on_what_it_trains(method):
    def validated(method, **options):
        data = arrays(meta_size=0, val_size=0.25)
        trainer = meta_fit(method(mlp(), CLASSES, optimizer=sgd, **options).double(), data, limit_train_batches=1)
        return trainer.callback_metrics["val/loss"]

    torch.manual_seed(0)
    expected = validated(CrossEntropy)
    torch.manual_seed(0)
    counts = {"class_counts": COUNTS} if method is LDAM else {}
    assert validated(method, warmup_epochs=2, **counts) == expected


@pytest.mark.parametrize("method", [LDAM, ArcFace, LargeMarginSoftmax])
def test_the_bias_gets_a_gradient_of_zero(method):
    counts = {"class_counts": COUNTS} if method is LDAM else {}
    module = make(method, **counts)
    before = module.net.bias.detach().clone()
    train(module)
    assert torch.equal(module.net.bias, before)
    assert torch.equal(module.net.bias.grad, torch.zeros(CLASSES)) or module.net.bias.grad is None


@pytest.mark.parametrize("method", [LDAM, ArcFace, LargeMarginSoftmax])
def test_features_that_are_all_zero(method):
    counts = {"class_counts": COUNTS} if method is LDAM else {}
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    nn.init.constant_(net[0].bias, -100.0)
    module = method(net, CLASSES, **counts)
    trainer_of(max_epochs=1).fit(
        module, DataLoader([(DRAWN.float().expand(4, 6), torch.arange(4))] * 2, batch_size=None)
    )
    assert all(torch.isfinite(p).all() for p in net.parameters())


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (LDAM, {"margin": 0.0}, "margin=0.0"),
        (LDAM, {"scale": -1.0}, "scale=-1.0"),
        (LargeMarginSoftmax, {"m": 0}, "m=0 must be at least 1"),
        (LargeMarginSoftmax, {"beta_decay": 1.1}, "beta_decay=1.1"),
        (ArcFace, {"margin": 2.0}, "margin=2.0"),
        (ArcFace, {"scale": -1.0}, "scale=-1.0"),
    ],
)
def test_bad_arguments(method, options, message):
    assert RATE > 0
    with pytest.raises(ValueError, match=message):
        make(method, **options)
