"""Clean and noisy samples apart, in every figure with the same colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_perturb.figures.style import COLORS


@dataclass(frozen=True)
class Group:
    """Samples that are drawn together.

    Attributes:
        name: What they are.
        color: Their colour.
        members: Which samples they are ``[N]``.
    """

    name: str
    color: str
    members: npt.NDArray[np.bool_]

    @property
    def label(self) -> str:
        """Name and number of samples."""
        return f"{self.name} ({int(self.members.sum()):,})"


def groups(known: npt.NDArray[np.bool_], noisy: npt.NDArray[np.bool_] | None) -> list[Group]:
    """Clean and noisy samples, or all of them where it is unknown which are noisy or none is.

    Args:
        known: Which samples are drawn at all ``[N]``.
        noisy: Which samples carry a wrong label ``[N]``, or None.
    """
    if noisy is None or not (known & noisy).any():
        return [Group("all samples", COLORS[0], known)]
    return [Group("clean", COLORS[0], known & ~noisy), Group("noisy", COLORS[1], known & noisy)]
