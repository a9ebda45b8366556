"""Cheap tangents for the layers that take the time.

The convolutions of the training forward are recorded, so that only their tangents are computed: d(W * x) = W * dx +
dW * x. And batch norm in train mode has, in x, a self-adjoint Jacobian: its tangent is the fused backward kernel
applied to the tangent. Everything else follows PyTorch's own forward rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)


class RecordConvolutions(TorchFunctionMode):
    """Keeps what every convolution returns while this mode is on, in order, without copying."""

    def __init__(self) -> None:
        super().__init__()
        self._recorded: list[tuple[Tensor, int]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs ``func`` and notes its result if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            self._recorded.append((result.detach(), result._version))
        return result

    def results(self) -> list[Tensor | None]:
        """The results in order; ``None`` for one that was changed in place since."""
        return [result if result._version == version else None for result, version in self._recorded]


class FusedTangents(TorchFunctionMode):
    """Own tangents for convolutions and train-mode batch norm.

    Args:
        convolutions: the results of the convolutions that will be met, in order; computed where one is missing.
    """

    def __init__(self, convolutions: Sequence[Tensor | None]) -> None:
        super().__init__()
        self._recorded = iter(convolutions)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs ``func`` or the own rule that stands for it."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return _convolution(next(self._recorded, None), func, *args, **kwargs)
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def dual(value: Tensor, tangent: Tensor) -> Tensor:
    """``value`` with ``tangent`` attached."""
    attached: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return attached


def tangent_of(tensor: Tensor) -> Tensor | None:
    """The tangent of ``tensor``, if it has one."""
    return _parts(tensor)[1]


def _parts(tensor: Tensor | None) -> tuple[Any, Tensor | None]:
    if tensor is None:
        return None, None
    value, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return value, tangent


def _convolution(
    recorded: Tensor | None,
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    x, dx = _parts(input)
    w, dw = _parts(weight)
    b, db = _parts(bias)
    value = func(x, w, b, *args, **kwargs) if recorded is None else recorded
    if db is not None and dw is None:
        dw = torch.zeros_like(w)
    tangent = None if dx is None else func(dx, w, None, *args, **kwargs)
    if dw is not None:
        moved = func(x, dw, db, *args, **kwargs)
        tangent = moved if tangent is None else tangent.add_(moved)
    return value if tangent is None else dual(value, tangent)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:  # affine in x: PyTorch's rule is cheap
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x, dx = _parts(input)
    w, dw = _parts(weight)
    b, db = _parts(bias)
    # The running statistics are copies that nobody reads again, so they stay.
    value, mean, rstd = torch.native_batch_norm(x, w, b, None, None, True, momentum, eps)
    tangent: Tensor | None = None
    if dx is not None:
        if dx.stride() != x.stride():  # the kernel is fast for one common layout only
            dx = torch.empty_like(x).copy_(dx)
        tangent = torch.ops.aten.native_batch_norm_backward(
            dx, x, w, None, None, mean, rstd, True, eps, [True, False, False]
        )[0]
    if w is not None and (dw is not None or db is not None):
        # dw * (x - mean) * rstd + db, in one elementwise kernel
        dw = torch.zeros_like(w) if dw is None else dw
        affine = torch.native_batch_norm(x, dw, db, mean, rstd.pow(-2), False, 0.0, 0.0)[0]
        tangent = affine if tangent is None else tangent.add_(affine)
    return value if tangent is None else dual(value, tangent)
