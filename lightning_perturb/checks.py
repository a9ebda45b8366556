"""Argument checks whose messages name the argument, its value and the remedy."""

from __future__ import annotations

import math
from collections.abc import Collection


def check_range(
    name: str, value: float, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raises a ValueError unless ``low <= value <= high`` (strictly where a side is open)."""
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if below or above or math.isnan(value):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name}={value!r} is outside {interval}. Choose a value inside that interval.")


def check_rate(name: str, value: float) -> None:
    """Raises a ValueError unless ``value`` is a share in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value!r} is not a share. Give a number from 0 to 1 (40 % is 0.4).")


def check_positive(name: str, value: float, *, zero: bool = False) -> None:
    """Raises a ValueError unless ``value`` is finite and positive (or zero, where ``zero`` allows it)."""
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}={value!r} must be a finite number {'of at least' if zero else 'above'} 0.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises a ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown. Choose one of: {', '.join(sorted(choices))}.")


def check_used(
    name: str, value: object, default: object, option: str, chosen: object, users: Collection[object]
) -> None:
    """Raises a ValueError if an argument was given whose option is not chosen.

    Args:
        name: Name of the argument.
        value: Its value.
        default: Its default; another value was given.
        option: Name of the option that decides whether the argument is used.
        chosen: What the option is.
        users: What it must be for the argument to be used.
    """
    if value != default and chosen not in users:
        raise ValueError(
            f"{name}={value!r} contradicts {option}={chosen!r}, which does not use it. Leave {name} away, or use "
            f"{option}={' or '.join(map(repr, users))}."
        )
