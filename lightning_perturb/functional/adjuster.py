"""From the raw outputs of a NARL-Adjuster to the hyperparameters of a robust loss [narl 3.2]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import upcast


def adjust(
    raw: Tensor,
    scale: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    offset: Sequence[float] | None = None,
    soft_range: bool = False,
) -> Tensor:
    """Hyperparameters from raw outputs: offset + scale sigmoid(raw), clamped to [low, high] [narl 3.2].

    Where the clamp holds, the adjuster gets no gradient. ``soft_range`` spreads the sigmoid over the same reachable
    interval instead, low + (min(high, offset + scale) - low) sigmoid(raw), which never saturates before the sigmoid
    does.

    Args:
        raw: The adjuster's outputs before the sigmoid, [B, d'], one column per hyperparameter.
        scale: s, one number above 0 per hyperparameter.
        low: The smallest value of each.
        high: The largest value of each, above low.
        offset: What is added before the clamp; none is 0.
        soft_range: Whether to spread instead of to clamp.

    Returns:
        The hyperparameters, [B, d']; float32 for half-precision outputs.

    Raises:
        ValueError: If the lengths differ from d' or an interval is empty.
    """
    offset = [0.0] * len(scale) if offset is None else offset
    _check(raw, scale, low, high, offset)
    squashed = torch.sigmoid(upcast(raw))
    columns = []
    for share, s, least, most, start in zip(squashed.unbind(1), scale, low, high, offset, strict=True):
        reachable = min(most, start + s) - least
        columns.append(least + reachable * share if soft_range else (start + s * share).clamp(least, most))
    return torch.stack(columns, 1)


def gce_hyperparameters(
    raw: Tensor, scale: float = 1.5, low: float = 0.01, high: float = 1.0, soft_range: bool = False
) -> Tensor:
    """q of A-GCE.

    Args:
        raw: The adjuster's output, [B, 1].
        scale: s.
        low: The smallest q.
        high: The largest q.
        soft_range: As in ``adjust``.

    Returns:
        q, [B].

    Raises:
        ValueError: As ``adjust``.
    """
    return adjust(raw, [scale], [low], [high], soft_range=soft_range).squeeze(1)


def js_hyperparameters(
    raw: Tensor, scale: float = 1.4, low: float = 0.01, high: float = 0.99, soft_range: bool = False
) -> Tensor:
    """pi1 of A-JS.

    Args:
        raw: The adjuster's output, [B, 1].
        scale: s.
        low: The smallest pi1.
        high: The largest pi1.
        soft_range: As in ``adjust``.

    Returns:
        pi1, [B].

    Raises:
        ValueError: As ``adjust``.
    """
    return adjust(raw, [scale], [low], [high], soft_range=soft_range).squeeze(1)


def sl_hyperparameters(
    raw: Tensor,
    scale: Sequence[float] = (1.0, 1.0),
    low: Sequence[float] = (0.0, 0.0),
    high: Sequence[float] = (20.0, 20.0),
    soft_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """gamma1 and gamma2 of A-SL, which the adjuster moves independently.

    Args:
        raw: The adjuster's outputs, [B, 2].
        scale: s of both.
        low: The smallest value of both.
        high: The largest value of both.
        soft_range: As in ``adjust``.

    Returns:
        gamma1 and gamma2, each [B].

    Raises:
        ValueError: As ``adjust``.
    """
    gamma1, gamma2 = adjust(raw, scale, low, high, soft_range=soft_range).unbind(1)
    return gamma1, gamma2


def polysoft_hyperparameters(
    raw: Tensor,
    scale: Sequence[float] = (10.0, 4.0),
    low: Sequence[float] = (1e-3, 1.01),
    high: Sequence[float] = (20.0, 20.0),
    offset: Sequence[float] = (0.0, 1.01),
    soft_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """Lam and d of A-PolySoft. The paper's scales are not published: these are ours.

    Args:
        raw: The adjuster's outputs, [B, 2].
        scale: s of both.
        low: The smallest value of both; lam above 0 and d above 1.
        high: The largest value of both.
        offset: What is added to both before the clamp.
        soft_range: As in ``adjust``.

    Returns:
        lam and d, each [B].

    Raises:
        ValueError: As ``adjust``.
    """
    lam, d = adjust(raw, scale, low, high, offset, soft_range).unbind(1)
    return lam, d


def _check(
    raw: Tensor, scale: Sequence[float], low: Sequence[float], high: Sequence[float], offset: Sequence[float]
) -> None:
    if raw.ndim != 2 or raw.shape[1] != len(scale):
        raise ValueError(
            f"raw has the shape {tuple(raw.shape)} where [B, {len(scale)}] is needed: one column for each of the "
            f"{len(scale)} hyperparameters."
        )
    if not len(scale) == len(low) == len(high) == len(offset):
        raise ValueError(
            f"scale, low, high and offset have {len(scale)}, {len(low)}, {len(high)} and {len(offset)} entries. "
            "Give each one entry per hyperparameter."
        )
    for s, least, most, start in zip(scale, low, high, offset, strict=True):
        if not s > 0:
            raise ValueError(f"scale={s!r} must be above 0.")
        if not least < min(most, start + s):
            raise ValueError(
                f"low={least!r} leaves nothing below high={most!r} and offset + scale={start + s!r}. Lower it."
            )
