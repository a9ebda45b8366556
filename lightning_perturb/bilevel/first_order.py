"""The engines without a second-order graph: dM/dθ from one tangent of the outputs.

With o(w) the outputs on the training batch, L(o; θ) the inner loss, ŵ the virtual step with slope s = dŵ/d∇L
(s = -α for plain SGD) and g = ∇M(ŵ):

    dM/dθ = ∂/∂θ < ∂L/∂o(θ), t >,   t = J (s·g), the derivative of o(w) along s·g

t does not depend on θ: it is a constant of the last derivative, which runs through the loss only. Per sample, with
L = 1/n Σ ℓ_i, this is -α/n Σ_i ∂/∂θ < ∂ℓ_i/∂o_i(θ), J_i g >. Exact, with no approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_perturb.bilevel.lookahead import virtual_step
from lightning_perturb.bilevel.step import NO_META, Step, filled
from lightning_perturb.bilevel.tangents import Tangents


class NotFirstOrderError(RuntimeError):
    """The formula does not hold for this problem, or its tangent cannot be had; the message says why."""


def first_order(
    step: Step,
    outputs: Mapping[str, Tensor],
    tangents: Callable[[Step, dict[str, Tensor]], Tangents],
    tolerance: float | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """dM/dθ, M(ŵ) and L from the outputs of the training forward, whose graph is kept for the real step.

    Args:
        step: the problem.
        outputs: of the training forward, with their graph.
        tangents: gives the derivative of the outputs along a direction.
        tolerance: compare the tangent with the backward pass, which knows its product with ∂L/∂o, to this relative
            tolerance, or to that of the precision if it is larger.

    Returns:
        The gradients, the meta loss and the inner loss.

    Raises:
        NotFirstOrderError: if the outputs depend on θ, a layer has no forward rule, or the check fails.
        ValueError: if the loss reads a parameter that is not among its outputs, or does not depend on θ.
    """
    attached = {name: output for name, output in outputs.items() if output.requires_grad}
    leaves = {name: output.detach().requires_grad_() for name, output in attached.items()}
    ahead, theta = list(step.ahead.values()), step.theta
    loss = step.loss({**outputs, **leaves}, step.train_batch)
    step.require_pure(loss)
    found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, allow_unused=True)
    slopes = {name: slope for name, slope in zip(leaves, found, strict=True) if slope is not None}
    if not slopes:
        raise ValueError("the loss does not depend on any output through which a gradient flows to the network.")

    at = [slope.detach() for slope in slopes.values()]
    backward = torch.autograd.grad(
        [attached[name] for name in slopes], [*ahead, *theta], at, retain_graph=True, allow_unused=True
    )
    if any(gradient is not None for gradient in backward[len(ahead) :]):
        raise NotFirstOrderError("the outputs depend on the meta parameters, not the loss alone")
    local = filled(backward[: len(ahead)], ahead)
    stepped, rates = virtual_step(step.sgd, step.ahead, step.reduce(local))
    meta_loss, meta_gradient, total = step.meta_gradient(stepped)
    direction = {name: g * rate for name, g, rate in zip(step.ahead, meta_gradient, rates, strict=True)}
    del stepped, meta_gradient  # each as large as the network
    try:
        moved = tangents(step, direction)
    except NotImplementedError as error:
        raise NotFirstOrderError(str(error).partition("\n")[0]) from error

    pairs = [(slope, tangent) for name, slope in slopes.items() if (tangent := moved[name]) is not None]
    product = sum((_inner(slope, tangent) for slope, tangent in pairs), loss.new_zeros(()))
    if tolerance is not None:
        expected = sum((_inner(g, d) for g, d in zip(local, direction.values(), strict=True)), loss.new_zeros(()))
        wrong = ~(_error(product.detach(), expected, pairs) <= tolerance) & expected.isfinite()
        if bool(step.reduce([wrong.float()])[0] > 0):  # on any rank, so that all take the same way
            raise NotFirstOrderError(
                f"the tangent and the backward pass disagree ({product.item():.6g} against {expected.item():.6g}): a "
                "layer has a wrong forward rule, draws other random numbers when it runs again, or works under no_grad"
            )
    in_theta = torch.autograd.grad(product, theta, allow_unused=True) if product.requires_grad else [None] * len(theta)
    if all(gradient is None for gradient in in_theta):
        raise ValueError(NO_META)
    total = [a + b for a, b in zip(total, filled(in_theta, theta), strict=True)]
    return step.reduce(total), meta_loss, loss.detach()


def _inner(left: Tensor, right: Tensor) -> Tensor:
    dtype = torch.promote_types(left.dtype, torch.float32)
    return (left.to(dtype) * right.to(dtype)).sum()


def _error(product: Tensor, expected: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Relative difference of < ∂L/∂o, J d > and < ∇L, d >, which must be equal, less what the precision allows."""
    size = expected.abs()
    if pairs:
        slopes, tangents = zip(*pairs, strict=True)
        size = torch.maximum(size, (_norm2(slopes) * _norm2(tangents)).sqrt())
    half = torch.is_autocast_enabled(product.device.type) or any(slope.element_size() < 4 for slope, _ in pairs)
    precision = 1e-1 if half else 0.0 if product.dtype == torch.float64 else 1e-2
    return (product - expected).abs() / size.clamp_min(torch.finfo(size.dtype).tiny) - precision


def _norm2(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([_inner(tensor.detach(), tensor.detach()) for tensor in tensors]).sum()
