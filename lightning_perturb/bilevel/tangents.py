"""Tangents of the outputs along a direction in parameter space: by forward mode, or by central differences.

None of this may be back-propagated: PyTorch differentiates the tangent of a train-mode batch norm wrongly and says
nothing. So everything here runs without gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lightning_perturb.bilevel.fused import dual, tangent_of
from lightning_perturb.bilevel.replay import differentiable_kernels
from lightning_perturb.bilevel.step import Step

Tangents = dict[str, Tensor | None]


def forward_tangents(step: Step, direction: Mapping[str, Tensor], rules: AbstractContextManager[Any]) -> Tangents:
    """Tangents of the training outputs along ``direction`` by forward-mode differentiation.

    Args:
        step: the problem.
        direction: tangent of each look-ahead parameter.
        rules: :class:`FusedTangents`, or ``nullcontext()`` for PyTorch's own rules alone.

    Returns:
        The tangent of each output; ``None`` where the output does not move.

    Raises:
        NotImplementedError: if a layer has no forward rule.
    """
    with torch.no_grad(), differentiable_kernels(step.net), forward_ad.dual_level(), rules:
        outputs = step.replay({n: dual(p.detach(), direction[n]) for n, p in step.ahead.items()})
        return {name: tangent_of(output) for name, output in outputs.items()}


def central_tangents(step: Step, direction: Mapping[str, Tensor]) -> Tangents:
    """Tangents of the training outputs along ``direction`` by central differences, for layers without forward rules.

    Two forwards, at the cube root of the machine precision to either side; the error is of the order of its square.
    """
    with torch.no_grad(), differentiable_kernels(step.net):
        length = torch.stack([tangent.norm() for tangent in direction.values()]).norm()
        precision = torch.finfo(length.dtype)
        width = precision.eps ** (1 / 3) / length.clamp_min(precision.tiny**0.5)
        above, below = (
            step.replay({n: p + sign * width * direction[n] for n, p in step.ahead.items()}) for sign in (1, -1)
        )
        return {
            name: (output - below[name]) / (2 * width) if output.is_floating_point() else None
            for name, output in above.items()
        }
