"""Cheap tangents for the layers that take the time.

The training forward's convolutions and batch statistics are recorded, so that only tangents are computed: d(W * x) =
W * dx + dW * x. And batch norm in train mode has, in x, a self-adjoint Jacobian: its tangent is the fused backward
kernel applied to the tangent. Everything else follows PyTorch's own forward rules.
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


class RecordForward(TorchFunctionMode):
    """Keeps, in order, what every convolution returns and every batch norm finds while this mode is on; no copies."""

    def __init__(self) -> None:
        super().__init__()
        self._convolutions: list[tuple[Tensor, int]] = []
        self._statistics: list[tuple[Tensor, Tensor] | None] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs ``func`` and notes its result if it is a convolution, its statistics if it is a batch norm."""
        result = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            self._convolutions.append((result.detach(), result._version))
        elif func is F.batch_norm:
            self._statistics.append(_saved_statistics(result))
        return result

    def rules(self) -> FusedTangents:
        """The tangents' rules for the same forward run again. A result that was changed in place since is left out."""
        kept = [result if result._version == version else None for result, version in self._convolutions]
        return FusedTangents(kept, self._statistics)


def _saved_statistics(normalised: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and 1/standard deviation of the batch, as the graph of a train-mode batch norm keeps them."""
    mean, rstd = (getattr(normalised.grad_fn, f"_saved_result{i}", None) for i in (1, 2))
    if not isinstance(mean, Tensor) or not isinstance(rstd, Tensor):
        return None
    whole = mean.shape == rstd.shape == normalised.shape[1:2]  # empty where the running statistics were used
    return (mean.detach(), rstd.detach()) if whole else None


class FusedTangents(TorchFunctionMode):
    """Own tangents for convolutions and train-mode batch norm.

    Args:
        convolutions: the results of the convolutions that will be met, in order; computed where one is missing.
        statistics: mean and 1/standard deviation of the batch norms that will be met, likewise.
    """

    def __init__(
        self, convolutions: Sequence[Tensor | None] = (), statistics: Sequence[tuple[Tensor, Tensor] | None] = ()
    ) -> None:
        super().__init__()
        self._convolutions = iter(convolutions)
        self._statistics = iter(statistics)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs ``func`` or the own rule that stands for it."""
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            return _convolution(next(self._convolutions, None), func, *args, **kwargs)
        if func is F.batch_norm:
            return _batch_norm(next(self._statistics, None), *args, **kwargs)
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
    recorded: tuple[Tensor, Tensor] | None,
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
    if recorded is None:
        value, mean, rstd = torch.native_batch_norm(x, w, b, None, None, True, momentum, eps)
    else:
        mean, rstd = recorded
        value = _normalised(x, w, b, mean, rstd)
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
        affine = _normalised(x, dw, db, mean, rstd)
        tangent = affine if tangent is None else tangent.add_(affine)
    return value if tangent is None else dual(value, tangent)


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor) -> Tensor:
    """weight * (x - mean) * rstd + bias."""
    return torch.native_batch_norm(x, weight, bias, mean, rstd.pow(-2), False, 0.0, 0.0)[0]
