"""Projected gradient steps on the input: the sample-level feature perturbation [tax 31-32, 57]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.functional._ball import ascent, check_attack, like, projection, unit, usable
from lightning_perturb.functional.cross_entropy import cross_entropy


def pgd(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    eps: float | Tensor,
    step: float | Tensor,
    steps: int,
    norm: str = "linf",
    start: Tensor | None = None,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    sign: int = 1,
    best: bool = False,
) -> Tensor:
    """The perturbation of the input that raises (or lowers) each sample's loss, by projected gradient.

    Every step goes along the sign of the gradient (``"linf"``) or the gradient of unit length in each sample
    (``"l2"``), and is projected to the ball of radius eps and then to [low, high]. eps and step may differ by channel,
    so that a ball in pixel space is kept around a normalised input: give pixel values divided by the normalisation's
    standard deviation, [1, C, 1, 1]; for ``"l2"`` the ball is then the ellipsoid of delta / eps, which is the ball of
    the pixels.

    The model runs in the mode it is in: switch dropout and batch norm before the call. Gradients are taken in the
    input only, so parameters' ``.grad`` is left as it is; outside, gradients may be off, inference mode included.

    Args:
        model: From the input to logits [B, C].
        x: The input, float, [B, ...].
        target: What the loss takes beside the logits; of length B.
        eps: The radius, at least 0: a number, or a tensor that broadcasts to x, by channel or by sample ([B, 1, ...]),
            whose values are not checked.
        step: The step size, of the same forms.
        steps: The number of steps, at least 0.
        norm: ``"linf"`` or ``"l2"``.
        start: The perturbation to start from, in the shape of x, projected first; none starts from 0.
        low: The smallest valid input, in the space of x, if there is one; a number or a tensor that broadcasts to x.
        high: The largest valid input, likewise.
        loss: From logits and target to the losses [B].
        sign: 1 raises the loss, -1 lowers it.
        best: Return the iterate of each sample with the highest loss (with ``sign`` -1 the lowest), the start among
            them, for one more forward pass; otherwise the last.

    Returns:
        delta, in the shape and dtype of x, detached.

    Raises:
        ValueError: If x is not a float tensor with a batch dimension, start has another shape, or a number is invalid;
            if the model's output does not depend on x by differentiable operations.
    """
    check_attack(x, eps, step, steps, norm, start, sign)
    with torch.inference_mode(False), torch.enable_grad():
        # tensors made in inference mode cannot enter a graph; their clones can
        x, target = usable(x.detach()), usable(target)
        with torch.no_grad():
            size = like(x, step)
            project = projection(x, like(x, eps), norm, low, high)
            delta = torch.zeros_like(x) if start is None else project(start.to(x.dtype))
        kept = _Best(sign) if best else None
        for _ in range(steps):
            losses, gradient, _ = ascent(model, x + delta, target, loss)
            if kept is not None:
                kept.see(delta, losses)
            with torch.no_grad():
                move = gradient.sign() * size if norm == "linf" else unit(gradient * size) * size
                delta = project(torch.add(delta, move, alpha=sign))
        if kept is None:
            return delta
        with torch.no_grad():
            return kept.see(delta, loss(model(x + delta), target))


class _Best:
    """The iterates of the most extreme loss so far."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.delta: Tensor | None = None
        self.value: Tensor | None = None

    def see(self, delta: Tensor, losses: Tensor) -> Tensor:
        value = self.sign * losses
        if self.delta is None or self.value is None:
            self.delta, self.value = delta, value
            return delta
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.delta = torch.where(better.view(-1, *[1] * (delta.ndim - 1)), delta, self.delta)
        return self.delta


def fgsm(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    eps: float | Tensor,
    norm: str = "linf",
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    sign: int = 1,
) -> Tensor:
    """The fast gradient (sign) method: one step from the input itself to the edge of the ball.

    Args:
        model: As of :func:`pgd`, as are the other arguments.
        x: The input, float, [B, ...].
        target: What the loss takes beside the logits.
        eps: The radius, and the length of the step.
        norm: ``"linf"``: eps times the sign of the gradient. ``"l2"``: eps times the gradient of unit length.
        low: The smallest valid input.
        high: The largest valid input.
        loss: From logits and target to the losses [B].
        sign: 1 raises the loss, -1 lowers it.

    Returns:
        delta, in the shape and dtype of x, detached.

    Raises:
        ValueError: As :func:`pgd`.
    """
    return pgd(model, x, target, eps, eps, 1, norm, None, low, high, loss, sign)


def uniform_start(u: Tensor, eps: float | Tensor) -> Tensor:
    """A start in the l_inf ball from uniform numbers.

    Args:
        u: Uniform numbers in [0, 1), in the shape of the input.
        eps: The radius, a number or a tensor that broadcasts to the input.

    Returns:
        (2 u - 1) eps, in the shape of u: uniform in the ball.
    """
    return (2 * u - 1) * eps


def l2_start(normal: Tensor, radius_u: Tensor, eps: float | Tensor) -> Tensor:
    """A start in the l2 ball of each sample from normal and uniform numbers.

    Args:
        normal: Standard normal numbers, in the shape of the input, [B, ...].
        radius_u: Uniform numbers in [0, 1), [B].
        eps: The radius, a number or a tensor that broadcasts to the input.

    Returns:
        A perturbation uniform in the ball, in the shape of normal.

    Raises:
        ValueError: If radius_u is not of shape [B].
    """
    if normal.ndim < 2 or radius_u.shape != normal.shape[:1]:
        raise ValueError(
            f"normal of shape {tuple(normal.shape)} and radius_u of shape {tuple(radius_u.shape)} must be "
            "[B, ...] and [B]."
        )
    # volume grows with the radius to the power of the dimension
    radius = radius_u.pow(1 / normal[0].numel()) if len(normal) else radius_u
    return unit(normal) * radius.view(-1, *[1] * (normal.ndim - 1)) * eps
