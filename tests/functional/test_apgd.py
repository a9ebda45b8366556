import math

import pytest
import torch
from torch import nn

from lightning_perturb.functional import apgd, apgd_checkpoints, cross_entropy, pgd

MEAN = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64).view(1, 3, 1, 1)
STD = torch.tensor([0.2, 0.25, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
LOW, HIGH = -MEAN / STD, (1 - MEAN) / STD


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 6, 3, stride=2), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(54, 4)).double()


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=generator) * 1.4 - 0.2).clamp(0, 1)


@pytest.fixture
def target(net, pixels):
    # two samples are wrong from the start
    return (net((pixels - MEAN) / STD).argmax(1) + torch.tensor([0, 1, 0, 0, 2])) % 4


def published_checkpoints(steps):
    """p_j = 0, .22, .41, .57, .70, .80, .87, .93, .99 by hand."""
    return [math.ceil(p * steps / 100) for p in (22, 41, 57, 70, 80, 87, 93, 99)]


def test_checkpoints():
    assert apgd_checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd_checkpoints(100) == published_checkpoints(100)
    assert apgd_checkpoints(20) == sorted(set(published_checkpoints(20)))
    assert apgd_checkpoints(0) == []


def naive(net, image, label, eps, steps, norm, start, rho=0.75):
    """One sample in pixel space, the normalisation inside the model, as the paper's Algorithm 1 is written."""

    def loss_of(x):
        x = x.clone().requires_grad_()
        logits = net(((x - MEAN[0]) / STD[0])[None])
        loss = -logits.log_softmax(1)[0, label]
        (gradient,) = torch.autograd.grad(loss, x)
        return float(loss), gradient, int(logits.argmax()) != label

    def project(x):
        move = x - image
        if norm == "linf":
            move = move.clamp(-eps, eps)
        elif move.norm() > eps:
            move = move * eps / move.norm()
        return (image + move).clamp(0, 1)

    def step_along(x, gradient, eta):
        return project(x + eta * (gradient.sign() if norm == "linf" else gradient / gradient.norm()))

    x = [project(image + start)]
    values = [loss_of(x[0])]
    eta, best = 2 * eps, 0
    marks = sorted(set(published_checkpoints(steps)))
    last_mark, halved, best_before = 0, False, values[0][0]
    x_max, f_max = x[0], values[0][0]
    gradient_max, fooled = values[0][1], x[0] if values[0][2] else None
    f_fooled = values[0][0] if values[0][2] else -math.inf
    previous, current, f_current, gradient = x[0], x[0], values[0][0], values[0][1]
    rises = 0
    for k in range(1, steps + 1):
        z = step_along(current, gradient, eta)
        alpha = 0.75 if k > 1 else 1.0
        new = project(current + alpha * (z - current) + (1 - alpha) * (current - previous))
        f_new, gradient_new, wrong = loss_of(new)
        rises += f_new > f_current
        if wrong and f_new > f_fooled:
            fooled, f_fooled = new, f_new
        if f_new > f_max:
            x_max, f_max, gradient_max, best = new, f_new, gradient_new, k
        previous, current, f_current, gradient = current, new, f_new, gradient_new
        if k in marks:
            halve = rises < rho * (k - last_mark) or (not halved and best_before == f_max)
            if halve:
                eta /= 2
                current, f_current, gradient = x_max, f_max, gradient_max
            halved, best_before, last_mark, rises = halve, f_max, k, 0
    return (x_max if fooled is None else fooled) - image, best


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5)])
def test_equals_the_papers_algorithm_sample_by_sample(net, pixels, target, norm, eps, random):
    start = torch.zeros_like(pixels)
    if random:
        u = torch.rand(pixels.shape, dtype=pixels.dtype, generator=torch.Generator().manual_seed(2))
        start = (2 * u - 1) * eps
    found = [naive(net, *sample, eps, 20, norm, begin) for *sample, begin in zip(pixels, target, start, strict=True)]
    x = (pixels - MEAN) / STD
    with torch.inference_mode():
        delta = apgd(net, x, target, eps / STD, 20, norm, start / STD if random else None, LOW, HIGH)
    torch.testing.assert_close(delta * STD, torch.stack([one for one, _ in found]))
    assert max(best for _, best in found) > 5, "the search must go on after its first checkpoint"
    inside = (x + delta) * STD + MEAN
    assert inside.min() >= -1e-12
    assert inside.max() <= 1 + 1e-12


def test_it_is_not_weaker_than_pgd(net, pixels, target):
    x = (pixels - MEAN) / STD
    ball = {"eps": 0.1 / STD, "low": LOW, "high": HIGH}
    by_pgd = pgd(net, x, target, step=0.025 / STD, steps=20, **ball)
    by_apgd = apgd(net, x, target, steps=20, **ball)
    right = [(net(x + delta).argmax(1) == target).sum() for delta in (by_apgd, by_pgd)]
    assert right[0] <= right[1]
    assert cross_entropy(net(x + by_apgd), target).mean() > 0.98 * cross_entropy(net(x + by_pgd), target).mean()


def test_a_wrong_class_beats_a_high_loss():
    """Many classes that nearly win make the loss high at the edge; one wins in the middle alone."""

    def model(x):
        return torch.cat([torch.zeros_like(x), 1 - 20 * (x - 0.25).abs(), *[10 * (x - 0.5) - 0.1] * 300], 1)

    x, target, middle = torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), torch.tensor([[0.25], [0.45]])
    delta = apgd(model, x, target, 0.5, 3, start=middle)
    assert delta[:, 0].tolist() == [0.25, 0.5]
    assert (cross_entropy(model(middle + 0.05), target) > cross_entropy(model(middle), target)).all()
    assert model(middle).argmax(1).tolist() == [1, 0]


def test_limits(net, pixels, target):
    start = torch.full_like(pixels, 0.3)
    torch.testing.assert_close(apgd(net, pixels, target, 0.1, 0, start=start), torch.full_like(pixels, 0.1))
    assert not apgd(net, pixels, target, 0.0, 5, start=start).any()
    assert apgd(net, pixels[:0], target[:0], 0.1, 3).shape == (0, 3, 8, 8)
    before = [p.grad for p in net.parameters()]
    apgd(net, pixels, target, 0.1, 2)
    assert before == [None] * 6 == [p.grad for p in net.parameters()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.long)}, "float tensor"),
        ({"eps": -0.1}, "eps=-0.1"),
        ({"steps": -1}, "steps=-1"),
        ({"norm": "l1"}, "norm='l1'"),
        ({"rho": 1.5}, r"rho=1\.5 is no share"),
        ({"start": torch.zeros(1, 3)}, "start has the shape"),
        ({"model": lambda v: v.round().detach()}, "differentiable"),
    ],
)
def test_bad_input(change, message):
    arguments = {"model": lambda v: v, "x": torch.zeros(2, 3), "eps": 0.1, "steps": 1}
    with pytest.raises(ValueError, match=message):
        apgd(target=torch.zeros(2, dtype=torch.long), **{**arguments, **change})
