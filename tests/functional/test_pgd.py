import copy
import math

import pytest
import torch
from torch import nn

from lightning_perturb.functional import cross_entropy, fgsm, l2_start, pgd, uniform_start

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
    # some pixels at the ends of the range, so that clipping matters
    return (torch.rand(5, 3, 8, 8, dtype=torch.float64, generator=generator) * 1.4 - 0.2).clamp(0, 1)


@pytest.fixture
def target():
    return torch.tensor([0, 1, 2, 3, 0])


def naive(net, pixels, target, eps, step, steps, norm, start, sign):
    """Sample by sample in pixel space, the normalisation inside the model; the perturbation in pixels."""
    out = []
    for i in range(len(pixels)):
        image = pixels[i]
        delta = start[i].clone()
        for k in range(steps + 1):
            if norm == "linf":
                delta = torch.max(torch.min(delta, torch.tensor(eps)), torch.tensor(-eps))
            elif delta.pow(2).sum().sqrt() > eps:
                delta = delta * eps / delta.pow(2).sum().sqrt()
            delta = (image + delta).clamp(0, 1) - image
            if k == steps:
                break
            moved = delta.clone().requires_grad_()
            logits = net(((image + moved)[None] - MEAN) / STD)
            loss = -logits.log_softmax(1)[0, target[i]]
            (gradient,) = torch.autograd.grad(loss, moved)
            direction = gradient.sign() if norm == "linf" else gradient / gradient.pow(2).sum().sqrt()
            delta = delta + sign * step * direction
        out.append(delta)
    return torch.stack(out)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(("norm", "eps", "step"), [("linf", 8 / 255, 2 / 255), ("l2", 0.5, 0.2)])
def test_equals_the_naive_loop_in_pixel_space(net, pixels, target, norm, eps, step, random, sign):
    start = torch.zeros_like(pixels)
    if random:
        u = torch.rand(pixels.shape, dtype=pixels.dtype, generator=torch.Generator().manual_seed(2))
        start = (2 * u - 1) * eps
    expected = naive(net, pixels, target, eps, step, 4, norm, start, sign)
    x = (pixels - MEAN) / STD
    given = start / STD if random else None
    delta = pgd(net, x, target, eps / STD, step / STD, 4, norm, given, LOW, HIGH, sign=sign)
    torch.testing.assert_close(delta * STD, expected)
    inside = (x + delta) * STD + MEAN
    assert inside.min() >= -1e-12
    assert inside.max() <= 1 + 1e-12
    change = cross_entropy(net(x + delta), target) - cross_entropy(net(x), target)
    assert (sign * change > 0).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_numbers_equal_tensors_and_samples_may_differ(net, pixels, target, norm):
    eps = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64).view(5, 1, 1, 1)
    together = pgd(net, pixels, target, eps, eps / 2, 3, norm, low=0.0, high=1.0)
    for i, value in enumerate(eps.flatten().tolist()):
        part = slice(i, i + 1)
        alone = pgd(net, pixels[part], target[part], value, value / 2, 3, norm, low=0.0, high=1.0)
        torch.testing.assert_close(together[part], alone)
        size = alone.abs().max() if norm == "linf" else alone.norm()
        assert size <= value + 1e-12
    assert not together[0].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_zero_steps_project_the_start(net, pixels, target, norm):
    start = torch.full_like(pixels, 0.3)
    delta = pgd(net, pixels, target, 0.1, 0.1, 0, norm, start)
    expected = torch.full_like(pixels, 0.1 if norm == "linf" else 0.1 / math.sqrt(3 * 64))
    torch.testing.assert_close(delta, expected)
    assert torch.equal(start, torch.full_like(pixels, 0.3))
    assert not pgd(net, pixels, target, 0.1, 0.1, 0, norm).any()
    assert not pgd(net, pixels, target, 0.0, 0.1, 2, norm, start, 0.0, 1.0).any()


def test_bounds_hold_for_one_side_and_the_ball_wins_over_invalid_inputs(net, pixels, target):
    delta = pgd(net, pixels, target, 0.3, 0.2, 3, low=0.0)
    assert (pixels + delta).min() >= -1e-12
    assert (pixels + delta).max() > 1.1
    outside = pixels + 5
    for norm in ("linf", "l2"):
        assert pgd(net, outside, target, 0.3, 0.2, 3, norm, high=100.0, low=0.0).abs().max() <= 0.3 + 1e-12
    assert pgd(net, outside, target, 0.3, 0.2, 3, low=0.0, high=1.0).abs().max() <= 0.3


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_whatever_the_gradient_mode_and_leaves_gradients_alone(net, pixels, target, outer):
    expected = pgd(net, pixels, target, 0.1, 0.05, 2)
    marks = [torch.full_like(p, 7.0) for p in net.parameters()]
    for p, mark in zip(net.parameters(), marks, strict=True):
        p.grad = mark.clone()
    with outer():
        x, y = pixels.clone(), target.clone()
        if outer is torch.enable_grad:
            x.requires_grad_()
        delta = pgd(net, x, y, 0.1, 0.05, 2)
        assert torch.is_grad_enabled() == (outer is torch.enable_grad)
    assert torch.equal(delta, expected)
    assert not delta.requires_grad
    assert x.grad is None
    assert not delta.is_inference()
    assert all(torch.equal(p.grad, mark) for p, mark in zip(net.parameters(), marks, strict=True))


def test_mode_and_statistics_are_the_callers(pixels, target):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).double()
    net.eval()
    before = copy.deepcopy(net.state_dict())
    pgd(net, pixels, target, 0.1, 0.05, 2)
    assert not net.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    net.train()
    pgd(net, pixels, target, 0.1, 0.05, 2)
    assert net.training
    assert net[1].num_batches_tracked == 2


def test_training_under_the_same_autocast_is_undisturbed(net, pixels, target):
    net, x = net.float(), pixels.float()
    with torch.autocast("cpu", torch.bfloat16):
        delta = pgd(net, x, target, 0.1, 0.05, 2)
        cross_entropy(net(x + delta), target).mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(net(x + delta), target).mean()
        expected = torch.autograd.grad(loss, list(net.parameters()))
    assert delta.dtype == torch.float32
    assert delta.abs().max() > 0
    for p, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


def test_own_loss_and_vectors():
    # the loss -(a x) falls along a: two steps of .3 against a radius of .5
    a = torch.tensor([[3.0, -4.0]])
    x, none = torch.zeros(1, 2), torch.zeros(1)
    arguments = {"loss": lambda out, y: -out.sum(1) + y}
    assert pgd(lambda v: v * a, x, none, 0.5, 0.3, 2, **arguments).tolist() == [[-0.5, 0.5]]
    delta = pgd(lambda v: v * a, x, none, 0.5, 0.3, 2, "l2", **arguments)
    assert delta[0].tolist() == pytest.approx([-0.3, 0.4])
    assert pgd(lambda v: v * a, x, none, 0.5, 0.3, 2, sign=-1, **arguments).tolist() == [[0.5, -0.5]]


def test_l2_step_survives_gradients_whose_squares_underflow_and_zero_gradients():
    a = torch.tensor([[3e-30, -4e-30], [0.0, 0.0]])
    delta = pgd(lambda v: v * a, torch.zeros(2, 2), torch.zeros(2), 9.0, 0.5, 1, "l2", loss=lambda out, y: out.sum(1))
    assert delta[0].tolist() == pytest.approx([0.3, -0.4])
    assert delta[1].tolist() == [0.0, 0.0]


def test_tensor_sizes_of_another_dtype_keep_the_dtype_of_x(net, pixels, target):
    net, x = net.float(), pixels.float()
    delta = pgd(net, x, target, (0.1 / STD), (0.05 / STD), 2, "l2", torch.zeros_like(pixels), LOW, HIGH)
    assert delta.dtype == torch.float32


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_iterate_of_each_sample(net, pixels, target, sign):
    # steps so long that losses go up and down
    iterates = [pgd(net, pixels, target, 0.3, 0.5, k, sign=sign) for k in range(7)]
    losses = torch.stack([cross_entropy(net(pixels + delta), target) for delta in iterates])
    chosen = (sign * losses).argmax(0)
    expected = torch.stack([iterates[k][i] for i, k in enumerate(chosen)])
    assert len(set(chosen.tolist()) - {6}) > 1, "the last iterate would do"
    assert torch.equal(pgd(net, pixels, target, 0.3, 0.5, 6, sign=sign, best=True), expected)
    start = torch.full_like(pixels, 0.01)
    assert torch.equal(pgd(net, pixels, target, 0.3, 0.5, 0, start=start, best=True), start)


def test_fast_gradient_sign(net, pixels, target):
    x = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(x), target).sum(), x)
    eps = 8 / 255 * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(1, 3, 1, 1)
    expected = (pixels + eps * gradient.sign()).clamp(0, 1) - pixels
    torch.testing.assert_close(fgsm(net, pixels, target, eps, low=0.0, high=1.0), expected)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(fgsm(net, pixels, target, 0.5, "l2"), 0.5 * gradient / length)
    torch.testing.assert_close(fgsm(net, pixels, target, 0.5, "l2", sign=-1), -0.5 * gradient / length)


def test_uniform_start():
    u = torch.tensor([[0.0, 0.5, 0.75]])
    assert uniform_start(u, 0.2).tolist() == [pytest.approx([-0.2, 0.0, 0.1])]
    eps = torch.tensor([[1.0, 2.0, 4.0]])
    assert uniform_start(u, eps).tolist() == [[-1.0, 0.0, 2.0]]


def test_l2_start_is_uniform_in_the_ball():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4000, 3, 1, generator=generator)
    delta = l2_start(normal, torch.rand(4000, generator=generator), 2.0)
    radius = delta.flatten(1).norm(dim=1) / 2.0
    assert radius.max() <= 1 + 1e-6
    # the cube of the radius is uniform in three dimensions
    for q in (0.25, 0.5, 0.75):
        assert (radius**3 < q).float().mean().item() == pytest.approx(q, abs=0.03)
    torch.testing.assert_close(nn.functional.normalize(delta.flatten(1)), nn.functional.normalize(normal.flatten(1)))
    assert l2_start(torch.zeros(2, 3), torch.rand(2), 1.0).isfinite().all()
    with pytest.raises(ValueError, match="radius_u of shape"):
        l2_start(normal, torch.rand(3), 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, dtype=torch.long)}, "float tensor"),
        ({"x": torch.zeros(3)}, "float tensor"),
        ({"eps": -0.1}, "eps=-0.1"),
        ({"step": math.nan}, "step=nan"),
        ({"steps": -1}, "steps=-1"),
        ({"norm": "l1"}, "norm='l1'"),
        ({"sign": 0}, "sign=0"),
        ({"start": torch.zeros(1, 3)}, "start has the shape"),
        ({"model": lambda v: v.detach() * 2}, "does not depend on its input by differentiable"),
    ],
)
def test_bad_input(change, message):
    arguments = {"model": lambda v: v, "x": torch.zeros(2, 3), "eps": 0.1, "step": 0.1, "steps": 1}
    with pytest.raises(ValueError, match=message):
        pgd(target=torch.zeros(2, dtype=torch.long), **{**arguments, **change})
