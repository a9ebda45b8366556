import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lightning_perturb.functional import (
    bounded_reweighting,
    bounded_step,
    linear_spl_weights,
    pgd,
    priced_label,
    priced_loss_change,
    priced_step,
    project_simplex,
    shared_slack,
    spl_weights,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("sign", [1, -1])
def test_bounded_steps_are_those_of_pgd(norm, sign):
    w, x, y = draw(6, 4, seed=1), draw(5, 6), torch.tensor([0, 1, 2, 3, 0])
    eps, step = 0.3, 0.2
    expected = pgd(lambda z: z @ w, x, y, eps, step, 4, norm, sign=sign)
    delta = torch.zeros_like(x)
    for _ in range(4):
        z = (x + delta).requires_grad_()
        (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z @ w, y, reduction="sum"), z)
        delta = bounded_step(delta, g, torch.full((5,), float(sign)), step, eps, norm)
    torch.testing.assert_close(delta, expected)
    assert float((delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)).max()) <= eps + 1e-12


def test_bounded_step_signs_and_tensors():
    delta, g = draw(3, 2), draw(3, 2, seed=1)
    sign = torch.tensor([1.0, 0.0, -1.0])
    found = bounded_step(delta, g, sign, 0.5, norm="none")
    torch.testing.assert_close(found, delta + sign[:, None] * 0.5 * g)
    for norm in ("linf", "l2"):
        kept = bounded_step(5 * delta, g, sign, 0.5, torch.tensor([[0.1, 0.2]]), norm)
        assert torch.equal(kept[1], 5 * delta[1]), "a perturbation that nobody asked to move"
        scaled = kept / torch.tensor([0.1, 0.2])
        assert float((scaled.abs().amax(1) if norm == "linf" else scaled.norm(dim=1))[[0, 2]].max()) <= 1 + 1e-9
        assert not bounded_step(delta * 0, g * 0, sign, 0.5, 1.0, norm).any()
    with pytest.raises(ValueError, match="norm='l7'"):
        bounded_step(delta, g, sign, 0.1, norm="l7")


@pytest.mark.parametrize("penalty", ["l1", "l2", "squared"])
def test_priced_steps_end_at_the_minimum(penalty):
    # a convex quadratic, whose penalised minimum is found numerically
    root = draw(3, 3)
    matrix, b = root @ root.T + torch.eye(3).double(), 3 * draw(2, 3, seed=2)
    charge = {"l1": lambda d: np.abs(d).sum(), "l2": lambda d: np.linalg.norm(d), "squared": lambda d: (d @ d) / 2}
    delta, step = torch.zeros(2, 3).double(), 1 / float(torch.linalg.matrix_norm(matrix, 2))
    for _ in range(3000):
        delta = priced_step(delta, delta @ matrix + b, torch.tensor([-1.0, -1.0]), step, 0.8, penalty)
    for row, linear in zip(delta.numpy(), b.numpy(), strict=True):

        def objective(d, linear=linear):
            return d @ matrix.numpy() @ d / 2 + linear @ d + 0.8 * charge[penalty](d)

        best = min(minimize(objective, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13}).fun
                   for start in (np.zeros(3), row + 0.1))  # fmt: skip
        assert objective(row) <= best + 1e-8


def test_priced_step_zeros_and_ascent():
    delta = torch.zeros(2, 3)
    g = torch.tensor([[0.5, -0.2, 0.0], [4.0, 0.0, 0.0]])
    down = torch.tensor([-1.0, -1.0])
    shrunk = priced_step(delta, g, down, 1.0, 0.6, "l1")
    torch.testing.assert_close(shrunk, torch.tensor([[0.0, 0.0, 0.0], [-3.4, 0.0, 0.0]]))
    assert not priced_step(delta, g, down, 1.0, 0.6, "l2")[0].any()
    raised = priced_step(delta, g, torch.tensor([1.0, 0.0]), 1.0, 1.0, "squared")
    torch.testing.assert_close(raised, torch.tensor([[0.25, -0.1, 0.0], [0.0, 0.0, 0.0]]))
    for bad in ({"step": 0.0}, {"penalty": "l3"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            priced_step(delta, g, down, **{"step": 1.0, "lam": 1.0, **bad})


def test_projection_to_the_simplex():
    values = 3 * draw(20, 5)
    found = project_simplex(values)
    torch.testing.assert_close(found.sum(1), torch.ones(20).double())
    assert bool((found >= 0).all())
    # the nearest point makes an obtuse angle with every other
    corners = torch.eye(5).double()
    for value, point in zip(values, found, strict=True):
        assert bool(((corners - point) @ (value - point) <= 1e-9).all())
    torch.testing.assert_close(project_simplex(found), found)
    assert bool(project_simplex(torch.full((1, 3), float("nan"))).isnan().all()), "the finite check must see it"


@pytest.mark.parametrize("lam", [0.05, 1.0, 20.0])
def test_priced_labels_are_optimal(lam):
    y, log_p = torch.eye(4).double()[[0, 1, 2]], draw(3, 4, seed=3).log_softmax(1)
    sign = torch.tensor([-1.0, 1.0, 0.0])
    found = priced_label(y, log_p, sign, lam)
    assert torch.equal(found[2], y[2])
    others = torch.cat([torch.eye(4).double(), torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), 500))])
    for row, way in ((0, 1), (1, -1)):

        def objective(q, row=row, way=way):
            return -way * (q * log_p[row]).sum(-1) + lam * (q - y[row]).square().sum(-1) / 2

        assert bool((objective(found[row]) <= objective(others) + 1e-9).all())
    assert priced_label(y, log_p * 1e6, sign, lam).isfinite().all()
    with pytest.raises(ValueError, match="lam=0"):
        priced_label(y, log_p, sign, 0.0)


def test_priced_loss_changes_are_self_paced_weights():
    loss = torch.tensor([0.0, 0.2, 0.79, 0.81, 5.0], dtype=torch.float64)
    down = -torch.ones(5)
    torch.testing.assert_close(1 + priced_loss_change(loss, down, 0.8), spl_weights(loss, 0.8).double())
    torch.testing.assert_close(
        1 + priced_loss_change(loss, down, 0.8, "squared"), linear_spl_weights(loss, 0.8).double()
    )
    raised = priced_loss_change(loss, -down, 2.0, "squared")
    grid = torch.linspace(0, 4, 4001).double()
    best = ((1 + grid) * loss[:, None] - grid.square()).argmax(1)
    torch.testing.assert_close(raised, grid[best], atol=1e-3, rtol=0)
    assert not priced_loss_change(loss, 0 * down, 0.8).any()
    with pytest.raises(ValueError, match="penalty='l2'"):
        priced_loss_change(loss, down, 0.8, "l2")


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.34, 0.5, 0.99, 1.0, 3.0])
def test_the_shared_slack_is_the_minimiser(lam):
    loss = draw(11).abs()
    xi = shared_slack(loss, lam)

    def objective(xi):
        return (loss - xi).clamp(min=0).mean() + lam * xi

    for other in torch.cat([loss, torch.linspace(0, 4, 200).double()]):
        assert float(objective(xi)) <= float(objective(other)) + 1e-12
    assert float((loss > xi).double().mean()) <= lam + 1e-9
    assert float(shared_slack(torch.tensor([2.0]), 0.5)) == 2.0


def test_reweighting_moves_the_mean_most():
    loss, samples = draw(4).abs(), torch.tensor([3.0, 1.0, 5.0, 2.0]).double()
    share = samples / samples.sum()
    for sign in (1, -1):
        rho = bounded_reweighting(loss, samples, sign, 0.4)
        assert float(share @ rho) == pytest.approx(0, abs=1e-12)
        assert float(share @ rho.square()) == pytest.approx(0.16)
        for seed in range(200):
            other = draw(4, seed=seed)
            other = other - share @ other
            other = other * 0.4 / (share @ other.square()).sqrt()
            assert sign * float(share @ (rho * loss)) >= sign * float(share @ (other * loss)) - 1e-12
    assert float(bounded_reweighting(loss, samples, 1, 50.0).min()) == -1
    assert not bounded_reweighting(torch.ones(3), torch.ones(3), 1, 0.5).any(), "equal losses"
    assert not bounded_reweighting(loss, samples, 1, 0.0).any()
    with pytest.raises(ValueError, match="eps=-1"):
        bounded_reweighting(loss, samples, 1, -1.0)
    assert math.isfinite(float(bounded_reweighting(torch.tensor([1e-30, 2e-30]), torch.ones(2), 1, 0.5).sum()))


@pytest.mark.parametrize("seed", range(6))
def test_reweighting_is_exact_where_weights_reach_zero(seed):
    from scipy.optimize import minimize

    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(6, generator=generator, dtype=torch.float64) ** 3
    samples = torch.randint(1, 5, (6,), generator=generator).double()
    share = (samples / samples.sum()).numpy()
    for sign, eps in ((1, 0.8), (-1, 0.8), (1, 1.5), (-1, 1.5), (1, 5.0)):
        rho = bounded_reweighting(loss, samples, sign, eps).numpy()
        assert abs(share @ rho) < 1e-9
        assert share @ rho**2 <= eps**2 + 1e-9
        assert rho.min() >= -1
        best = minimize(
            lambda r, sign=sign: -sign * share @ (r * loss.numpy()),
            0 * share,
            bounds=[(-1, None)] * 6,
            constraints=[
                {"type": "eq", "fun": lambda r: share @ r},
                {"type": "ineq", "fun": lambda r, eps=eps: eps**2 - share @ r**2},
            ],
        )
        assert sign * share @ (rho * loss.numpy()) >= -best.fun - 1e-6
