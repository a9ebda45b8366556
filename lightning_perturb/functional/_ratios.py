"""Quotients with a removable 0 / 0, accurate there in value and in both derivatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log1p_ratio(x: Tensor) -> Tensor:
    """log(1 + x) / x for x >= -1, which is 1 at 0 and inf at -1."""
    near = x.abs() < 0.1
    small = torch.where(near, x, 0.0)
    # log(1 + x) = 2 artanh(x / (2 + x)): five terms reach double precision where Taylor's series needs twelve
    half = small / (2 + small)
    series = 2 / (2 + small) * _polynomial(half * half, [1 / (2 * k + 1) for k in range(6)])
    large = torch.where(near, 1.0, x)
    return torch.where(near, series, large.log1p() / large)


def expm1_ratio(x: Tensor) -> Tensor:
    """(1 - exp(-x)) / x for x >= 0, which is 1 at 0."""
    near = x < 0.5
    small = 0.5 * torch.where(near, x, 0.0)
    series = (-small).exp() * _polynomial(small * small, [1 / math.factorial(2 * k + 1) for k in range(6)])
    large = torch.where(near, 1.0, x)
    return torch.where(near, series, -(-large).expm1() / large)


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
