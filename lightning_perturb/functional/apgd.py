"""Auto-PGD on cross-entropy: projected gradient whose step size finds itself (Croce and Hein 2020, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.functional._ball import ascent, check_attack, like, projection, unit, usable
from lightning_perturb.functional.cross_entropy import cross_entropy

_MOMENTUM = 0.75


def apgd(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    eps: float | Tensor,
    steps: int = 100,
    norm: str = "linf",
    start: Tensor | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    rho: float = 0.75,
) -> Tensor:
    """The perturbation of the input that raises each sample's cross-entropy, by Auto-PGD.

    Steps begin at twice the radius and carry momentum. At checkpoints, which come ever more often, a sample's step is
    halved, and it goes on from its best iterate, if too few of its steps since the last one raised its loss, or if
    neither its step nor its highest loss has changed since.

    Args:
        model: As of :func:`~lightning_perturb.functional.pgd`, from the input to logits [B, C].
        x: The input, float, [B, ...].
        target: Class ids, [B].
        eps: The radius, as of ``pgd``.
        steps: The number of steps, at least 0; 100 in the paper. A step costs a forward and a backward pass.
        norm: ``"linf"`` or ``"l2"``.
        start: The perturbation to start from, in the shape of x, projected first; none starts from 0.
        low: The smallest valid input, as of ``pgd``.
        high: The largest valid input, likewise.
        rho: The share of steps that must raise the loss, in [0, 1].

    Returns:
        delta, in the shape and dtype of x, detached: of each sample an iterate that is not classified as its target, if
        there was one, otherwise that of the highest loss.

    Raises:
        ValueError: If x is not a float tensor with a batch dimension, start has another shape, or a number is invalid;
            if the model's output does not depend on x by differentiable operations.
    """
    check_attack(x, eps, 0.0, steps, norm, start, 1)
    if not 0 <= rho <= 1:
        raise ValueError(f"rho={rho!r} is no share of steps. Give a number from 0 to 1; the paper has 0.75.")
    with torch.inference_mode(False), torch.enable_grad():
        x, target = usable(x.detach()), usable(target)
        with torch.no_grad():
            radius = like(x, eps)
            project = projection(x, radius, norm, low, high)
            delta = torch.zeros_like(x) if start is None else project(start.to(x.dtype))
        walk = _Walk(delta, *ascent(model, x + delta, target, cross_entropy), target)
        checks = set(apgd_checkpoints(steps))
        for step in range(1, steps + 1):
            with torch.no_grad():
                direction = walk.gradient.sign() if norm == "linf" else unit(walk.gradient * radius)
                moved = project(walk.delta + walk.size * radius * direction)
                # the first step has no other one before it
                share = _MOMENTUM if step > 1 else 1.0
                moved = project(walk.delta + share * (moved - walk.delta) + (1 - share) * (walk.delta - walk.before))
            walk.go_to(moved, *ascent(model, x + moved, target, cross_entropy), target)
            if step in checks:
                walk.check(rho)
        return walk.found


def apgd_checkpoints(steps: int) -> list[int]:
    """The steps after which Auto-PGD looks at its step sizes: ceil(p_j steps).

    Here p_0 = 0, p_1 = 0.22 and p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    Args:
        steps: The number of steps.

    Returns:
        Their numbers, counted from 1, in order.
    """
    before, share = 0.0, 0.22
    found: list[int] = []
    while share <= 1:
        found.append(math.ceil(round(share * steps, 9)))
        before, share = share, share + max(share - before - 0.03, 0.06)
    return sorted({number for number in found if number > 0})


class _Walk:
    """Where each sample is, what was best, and how long its steps are ``[B, 1, ...]``, in radii."""

    def __init__(self, delta: Tensor, losses: Tensor, gradient: Tensor, logits: Tensor, target: Tensor) -> None:
        self.delta = self.before = self.best = self.found = delta
        self.gradient = self.best_gradient = gradient
        self.losses = self.highest = self.highest_before = losses
        self.fooled = logits.argmax(1) != target
        self.size = torch.full_like(self._wide(losses), 2.0)
        self.raised = torch.zeros_like(losses)
        self.halved = torch.zeros_like(self.fooled)
        self.passed = 0

    def _wide(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self.delta.ndim - 1))

    def go_to(self, delta: Tensor, losses: Tensor, gradient: Tensor, logits: Tensor, target: Tensor) -> None:
        self.raised = self.raised + (losses > self.losses)
        self.passed += 1
        self.before, self.delta, self.losses, self.gradient = self.delta, delta, losses, gradient
        better = losses > self.highest
        self.highest = torch.where(better, losses, self.highest)
        self.best = torch.where(self._wide(better), delta, self.best)
        self.best_gradient = torch.where(self._wide(better), gradient, self.best_gradient)
        fooled = logits.argmax(1) != target
        # a high loss alone need not be a wrong class
        taken = torch.where(self.fooled, fooled & better, fooled | better)
        self.found = torch.where(self._wide(taken), delta, self.found)
        self.fooled = self.fooled | fooled

    def check(self, rho: float) -> None:
        few = self.raised < rho * self.passed
        stuck = ~self.halved & (self.highest_before == self.highest)
        self.halved = few | stuck
        chosen = self._wide(self.halved)
        self.size = torch.where(chosen, self.size / 2, self.size)
        # momentum goes on from where the sample was
        self.delta = torch.where(chosen, self.best, self.delta)
        self.losses = torch.where(self.halved, self.highest, self.losses)
        self.gradient = torch.where(chosen, self.best_gradient, self.gradient)
        self.highest_before = self.highest
        self.raised, self.passed = torch.zeros_like(self.raised), 0
