"""Random numbers that belong to a sample, not to a stream.

Each number is a hash of (seed, stream, epoch, key, position), with the sample's index as key. Any number of workers and
ranks, and any resume, therefore sees the same draws.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >= 1 << 63 else value


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    # a logical shift: torch shifts signed integers arithmetically
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    # the finaliser of the SplitMix64 generator; int64 products wrap, as it wants
    z = (z ^ _shift(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shift(z, 27)) * _signed(_MIX_2)
    return z ^ _shift(z, 31)


def _bits(seed: int, stream: str, epoch: int, keys: Tensor, count: int) -> Tensor:
    base = _mix_int(_mix_int(seed & _MASK) + zlib.crc32(stream.encode()) * _GOLDEN + 1)
    base = _mix_int(base + (epoch + 1) * _GOLDEN)
    rows = _mix(_mix(keys.to(torch.int64) + 1) ^ _signed(base))
    steps = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * _signed(_GOLDEN)
    return _mix(rows[:, None] + steps[None, :])


def uniform(seed: int, stream: str, epoch: int, keys: Tensor, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1).

    Args:
        seed: Seed of the run.
        stream: Name of the use, so that two uses draw independent numbers.
        epoch: Epoch.
        keys: One integer per sample ``[B]``, its index.
        *shape: Shape of one sample's numbers; empty for a single number.

    Returns:
        float32 ``[B, *shape]`` on the device of ``keys``.
    """
    bits = _shift(_bits(seed, stream, epoch, keys, math.prod(shape)), 40)
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(keys), *shape)


def normal(seed: int, stream: str, epoch: int, keys: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers, float32 ``[B, *shape]``, by the Box-Muller transform of :func:`uniform`."""
    first = uniform(seed, f"{stream}/radius", epoch, keys, *shape)
    second = uniform(seed, f"{stream}/angle", epoch, keys, *shape)
    return torch.sqrt(-2.0 * torch.log1p(-first)) * torch.cos(2.0 * math.pi * second)


def integers(seed: int, stream: str, epoch: int, keys: Tensor, high: int, *shape: int) -> Tensor:
    """Integers in 0..high-1, int64 ``[B, *shape]``."""
    # 53 bits leave a bias below high * 2^-53
    bits = _shift(_bits(seed, stream, epoch, keys, math.prod(shape)), 11)
    return (bits.to(torch.float64) * 2.0**-53 * high).to(torch.int64).clamp_(max=high - 1).reshape(len(keys), *shape)
