"""The support vector machine as loss perturbation: its slack variables perturb the hinge loss [tax 16-19]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive


def hinge_loss(scores: Tensor, target: Tensor) -> Tensor:
    """max(0, 1 - y (w x + b)) [tax 16].

    Args:
        scores: w x + b, [N].
        target: y, -1 or 1, [N].

    Returns:
        The losses, [N].
    """
    return (1 - target * scores).clamp(min=0)


def slack(loss: Tensor, lam: float) -> Tensor:
    """The exact minimiser over xi >= 0 of max(0, l - xi) + lam |xi| [tax 17, 18].

    Below lam = 1 the slack takes the whole loss, which leaves lam l; from 1 on it costs more than it saves, and is 0.
    So [tax 18] is the machine [tax 19] with the price min(lam, 1): the two are the same up to lam = 1 alone.

    Args:
        loss: l, at least 0, [N].
        lam: The price, at least 0.

    Returns:
        xi, [N].

    Raises:
        ValueError: If lam is negative.
    """
    check_positive("lam", lam, zero=True)
    return loss.clone() if lam < 1 else torch.zeros_like(loss)


def svm_slack(x: Tensor, target: Tensor, lam: float, steps: int = 2000) -> tuple[Tensor, float, Tensor]:
    """The linear support vector machine, min ||w||^2 / 2 + lam sum xi with y (w x + b) >= 1 - xi, xi >= 0 [tax 19].

    Solved by accelerated projected gradient on the dual.

    Args:
        x: Samples, float, [N, d].
        target: Both of -1 and 1, [N].
        lam: The price of the slack, above 0.
        steps: The number of steps.

    Returns:
        w [d], b, and the slack xi [N].

    Raises:
        ValueError: If lam is not positive or target has other values or one class alone.
    """
    check_positive("lam", lam)
    y = target.to(x.dtype)
    values = sorted(set(y.tolist()))
    if values != [-1.0, 1.0]:
        raise ValueError(f"target holds {values[:5]}. Give -1 and 1, both of them.")
    signed = x * y[:, None]
    step = 1 / float(torch.linalg.matrix_norm(signed, 2)) ** 2
    alpha = ahead = torch.zeros_like(y)
    momentum = 1.0
    for _ in range(steps):
        new = _project(ahead + step * (1 - signed @ (ahead @ signed)), y, lam)
        if float((ahead - new) @ (new - alpha)) > 0:
            # the momentum points uphill: start it anew, which makes the end linear
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - alpha)
        alpha, momentum = new, following
    w = alpha @ signed
    # the error is convex and piecewise linear in b: its minimum is at a corner
    corners = y - x @ w
    costs = (1 - y * (x @ w + corners[:, None])).clamp(min=0).sum(1)
    b = corners[costs.argmin()]
    return w, float(b), hinge_loss(x @ w + b, y)


def _project(alpha: Tensor, y: Tensor, lam: float) -> Tensor:
    """The nearest point with 0 <= alpha <= lam and sum alpha y = 0: alpha - t y clipped, with the right t."""
    # the sum falls with t and is linear between the places where an entry reaches 0 or lam
    corners = torch.cat([alpha * y, (alpha - lam) * y]).sort().values
    sums = ((alpha - corners[:, None] * y).clamp(0, lam) * y).sum(1)
    right = int((sums > 0).sum().clamp(1, len(corners) - 1))
    left = right - 1
    drop = sums[left] - sums[right]
    share = torch.where(drop > 0, sums[left] / drop.clamp(min=torch.finfo(y.dtype).tiny), 0.0).clamp(0, 1)
    return (alpha - (corners[left] + share * (corners[right] - corners[left])) * y).clamp(0, lam)
