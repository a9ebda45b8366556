"""The reference engine: differentiate through the virtual step itself, with the second-order graph.

It carries what the first-order formula does not: several inner steps, and meta parameters that act before or inside
the network. The inner rule is ``higher``'s differentiable SGD; the network is run by ``functional_call``, which keeps
its hooks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from higher.optim import get_diff_optim
from torch import Tensor

from lightning_perturb.bilevel.replay import differentiable_kernels
from lightning_perturb.bilevel.step import NO_META, Step, filled


def second_order(step: Step, inner_steps: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """dM/dθ, M(ŵ) and L through ``inner_steps`` steps of the inner rule, all on the training batch.

    The graph is cut at the parameters w_k between the steps, and the adjoint dM/dw_k is carried over by hand: there it
    can be averaged over ranks.

    Args:
        step: the problem.
        inner_steps: number K of steps.

    Returns:
        The gradients, the meta loss, and the inner loss of the last step.

    Raises:
        ValueError: if the loss does not depend on θ.
    """
    names, width = list(step.ahead), len(step.ahead)
    optimizer = get_diff_optim(step.sgd, list(step.ahead.values()))
    buffers = step.start.buffers()
    leaves = [[p.detach().clone().requires_grad_() for p in step.ahead.values()]]
    stepped: list[list[Tensor]] = []
    with differentiable_kernels(step.net):
        for _ in range(inner_steps):
            values = leaves[-1]
            loss = step.loss(step.replay(dict(zip(names, values, strict=True)), buffers), step.train_batch)
            step.require_pure(loss)
            moved = optimizer.step(loss, params=values, grad_callback=lambda local: _averaged(local, step))
            stepped.append(list(moved))
            leaves.append([w.detach().requires_grad_() for w in moved])

    meta_loss, adjoint, total = step.meta_gradient(dict(zip(names, leaves[-1], strict=True)))
    adjoints = [[torch.zeros_like(w) for w in adjoint] for _ in range(inner_steps)] + [adjoint]
    reached = False
    for k in reversed(range(inner_steps)):
        # with momentum a step depends on the parameters of all steps before it; those of the first are constants
        before = [w for leaf in leaves[1 : k + 1] for w in leaf]
        inputs = [*before, *step.theta]
        found = torch.autograd.grad(stepped[k], inputs, adjoints[k + 1], retain_graph=k > 0, allow_unused=True)
        reached |= any(gradient is not None for gradient in found[len(before) :])
        gradients = filled(found, inputs)
        total = _sum(total, gradients[len(before) :])
        shared = step.reduce(gradients[: len(before)])
        for j in range(k):
            adjoints[j + 1] = _sum(adjoints[j + 1], shared[j * width : (j + 1) * width])
    if not reached:
        raise ValueError(NO_META)
    return step.reduce(total), meta_loss, loss.detach()


def _averaged(local: Sequence[Tensor | None], step: Step) -> list[Tensor]:
    """Gradients with the values of their mean over ranks and the derivatives of this rank."""
    gradients = filled(local, list(step.ahead.values()))
    mean = step.reduce([g.detach() for g in gradients])
    return [g + (m - g.detach()) for g, m in zip(gradients, mean, strict=True)]


def _sum(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(left, right, strict=True)]
