"""Projected gradient steps on the input: the sample-level feature perturbation [tax 31-32, 57]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
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
) -> Tensor:
    """The perturbation of the input that raises (or lowers) each sample's loss, by projected gradient.

    Every step goes along the sign of the gradient (``"linf"``) or the gradient of unit length in each sample
    (``"l2"``), and is projected to the ball of radius eps and then to [low, high]; the last iterate is returned.
    eps and step may differ by channel, so that a ball in pixel space is kept around a normalised input: give pixel
    values divided by the normalisation's standard deviation, [1, C, 1, 1]; for ``"l2"`` the ball is then the
    ellipsoid of delta / eps, which is the ball of the pixels.

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

    Returns:
        delta, in the shape and dtype of x, detached.

    Raises:
        ValueError: If x is not a float tensor with a batch dimension, start has another shape, or a number is invalid.
    """
    _check(x, eps, step, steps, norm, start, sign)
    with torch.inference_mode(False), torch.enable_grad():
        # tensors made in inference mode cannot enter a graph; their clones can
        x, target = _usable(x.detach()), _usable(target)
        with torch.no_grad():
            size = _like(x, step)
            project = _projection(x, _like(x, eps), norm, low, high)
            delta = torch.zeros_like(x) if start is None else project(start.to(x.dtype))
        for _ in range(steps):
            shifted = (x + delta).requires_grad_()
            (gradient,) = torch.autograd.grad(loss(model(shifted), target).sum(), shifted)
            with torch.no_grad():
                move = gradient.sign() * size if norm == "linf" else _unit(gradient * size) * size
                delta = project(torch.add(delta, move, alpha=sign))
        return delta


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
    return _unit(normal) * radius.view(-1, *[1] * (normal.ndim - 1)) * eps


def _check(
    x: Tensor, eps: float | Tensor, step: float | Tensor, steps: int, norm: str, start: Tensor | None, sign: int
) -> None:
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


def _usable(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _like(x: Tensor, value: float | Tensor) -> Tensor:
    """A number or tensor in the dtype of x; a number is filled in on the device, since a copy would wait for it."""
    return value.to(x.dtype) if isinstance(value, Tensor) else x.new_full((), value)


def _unit(values: Tensor) -> Tensor:
    """Each sample scaled to unit l2 norm; zero stays zero."""
    # a well-learnt sample has gradients whose squares underflow: bring them to 1 before squaring
    peak = values.abs().amax(tuple(range(1, values.ndim)), keepdim=True)
    values = values / torch.where(peak > 0, peak, 1.0)
    return values / _norms(values).clamp(min=1)


def _norms(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)
    return norms


def _projection(
    x: Tensor, eps: Tensor, norm: str, low: float | Tensor | None, high: float | Tensor | None
) -> Callable[[Tensor], Tensor]:
    """The projection of a perturbation to the ball and the valid inputs; the bounds are computed once."""
    lower = None if low is None else _like(x, low) - x
    upper = None if high is None else _like(x, high) - x
    if norm == "linf":
        # where the input itself is invalid the ball is kept first
        lower = -eps if lower is None else lower.clamp(-eps, eps)
        upper = eps if upper is None else upper.clamp(-eps, eps)
        return lambda delta: delta.clamp(lower, upper)

    # a radius of 0 makes the norm of delta / eps infinite and so delta 0
    scale = eps.clamp(min=torch.finfo(x.dtype).tiny)

    def project(delta: Tensor) -> Tensor:
        delta = delta / _norms(delta / scale).clamp(min=1)
        return delta if lower is None and upper is None else delta.clamp(lower, upper)

    return project
