"""Balls around inputs, and steps in them: what every attack on the input shares."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive


def check_attack(
    x: Tensor, eps: float | Tensor, step: float | Tensor, steps: int, norm: str, start: Tensor | None, sign: int
) -> None:
    """Says which argument of an attack is invalid.

    Raises:
        ValueError: If x is not a float tensor with a batch dimension, start has another shape, or a number is invalid.
    """
    if not x.is_floating_point() or x.ndim < 2:
        raise ValueError(
            f"x of shape {tuple(x.shape)} and dtype {x.dtype} must be a float tensor [B, ...]; "
            "perturb embeddings instead of token ids."
        )
    if start is not None and start.shape != x.shape:
        raise ValueError(f"start has the shape {tuple(start.shape)} where x has {tuple(x.shape)}; they must agree.")
    if not isinstance(eps, Tensor):
        check_positive("eps", eps, zero=True)
    if not isinstance(step, Tensor):
        check_positive("step", step, zero=True)
    if steps < 0:
        raise ValueError(f"steps={steps!r} must be at least 0.")
    if sign not in (1, -1):
        raise ValueError(f"sign={sign!r} must be 1 (raise the loss) or -1 (lower it).")
    check_choice("norm", norm, ("linf", "l2"))


def usable(tensor: Tensor) -> Tensor:
    """A tensor that can enter a graph: those made in inference mode cannot, but their clones can."""
    return tensor.clone() if tensor.is_inference() else tensor


def like(x: Tensor, value: float | Tensor) -> Tensor:
    """A number or tensor in the dtype of x; a number is filled in on the device, since a copy would wait for it."""
    return value.to(x.dtype) if isinstance(value, Tensor) else x.new_full((), value)


def unit(values: Tensor) -> Tensor:
    """Each sample scaled to unit l2 norm; zero stays zero."""
    # a well-learnt sample has gradients whose squares underflow: bring them to 1 before squaring
    peak = values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)
    values = values / torch.where(peak > 0, peak, 1.0)
    return values / norms(values).clamp(min=1)


def norms(values: Tensor) -> Tensor:
    """The l2 norm of each sample, [B, 1, ...]."""
    found: Tensor = torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)
    return found


def ascent(
    model: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """What a step goes by, at an input that is part of no graph; parameters' ``.grad`` is left as it is.

    Returns:
        The losses [B], their gradient in x, and the logits, all detached.

    Raises:
        ValueError: If the losses do not depend on x by differentiable operations.
    """
    x = x.detach().requires_grad_()
    logits = model(x)
    losses = loss(logits, target)
    if not losses.requires_grad:
        raise ValueError(
            "The model's output does not depend on its input by differentiable operations (it rounds, detaches or "
            "switches gradients off), so that no gradient can attack it. Give a differentiable model."
        )
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    return losses.detach(), gradient, logits.detach()


def projection(
    x: Tensor, eps: Tensor, norm: str, low: float | Tensor | None, high: float | Tensor | None
) -> Callable[[Tensor], Tensor]:
    """The projection of a perturbation to the ball and the valid inputs; the bounds are computed once."""
    lower = None if low is None else like(x, low) - x
    upper = None if high is None else like(x, high) - x
    if norm == "linf":
        # where the input itself is invalid the ball is kept first
        lower = -eps if lower is None else lower.clamp(-eps, eps)
        upper = eps if upper is None else upper.clamp(-eps, eps)
        return lambda delta: delta.clamp(lower, upper)

    # a radius of 0 makes the norm of delta / eps infinite and so delta 0
    scale = eps.clamp(min=torch.finfo(x.dtype).tiny)

    def project(delta: Tensor) -> Tensor:
        delta = delta / norms(delta / scale).clamp(min=1)
        return delta if lower is None and upper is None else delta.clamp(lower, upper)

    return project
