"""Inputs that a perturbation can be added to, and where they may go."""

from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.plain import Plain


class Normalised(Protocol):
    """What tells how pixels were normalised: facts of the data, or a data module.

    Attributes:
        mean: Per-channel mean that pixels in [0, 1] are shifted by, or None where inputs are not normalised pixels.
        std: Per-channel divisor, likewise.
    """

    @property
    def mean(self) -> tuple[float, ...] | None: ...  # noqa: D102 - an attribute

    @property
    def std(self) -> tuple[float, ...] | None: ...  # noqa: D102 - an attribute


def float_input(
    who: str, batch: Batch, remedy: str = "Use a method that perturbs logits or labels on such data."
) -> Tensor:
    """The input ``[B, ...]`` of a batch.

    Args:
        who: Name of what perturbs it.
        batch: The batch.
        remedy: What to do where it cannot be perturbed.

    Raises:
        ValueError: If the input is no float tensor.
    """
    x = batch.view
    if isinstance(x, Tensor) and x.is_floating_point():
        return x
    kind = str(x.dtype) if isinstance(x, Tensor) else "a mapping"
    raise ValueError(f"{who} adds a perturbation to the input, which must be a float tensor; it is {kind}. {remedy}")


class InputSpace(Plain):
    """In which units inputs are perturbed, and what they must stay inside.

    Args:
        units: ``pixel``: sizes are pixel values of [0, 1], whatever the normalisation of the input. ``input``: they
            are units of the input as the network sees it.
        clip: Keep perturbed images inside valid pixels; False for inputs that are no pixels.
        mean: Per-channel mean of the input's normalisation; None takes the data module's.
        std: Per-channel standard deviation, likewise.

    Raises:
        ValueError: If ``units`` is unknown, or only one of ``mean`` and ``std`` is given.
    """

    def __init__(
        self,
        units: Literal["pixel", "input"] = "pixel",
        clip: bool = True,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        check_choice("units", units, ("pixel", "input"))
        if (mean is None) != (std is None):
            raise ValueError("mean and std belong together: give both or neither.")
        self.units = units
        self.clip = clip
        self.mean = mean
        self.std = std

    def normalisation(self, x: Tensor, facts: Normalised | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``[1, C, 1, ...]`` of the input's pixels; 0 and 1 where nobody tells."""
        mean, std = self.mean, self.std
        if mean is None and facts is not None:
            mean, std = facts.mean, facts.std
        if mean is None or std is None:
            mean, std = (0.0,), (1.0,)
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x.new_tensor(mean).reshape(shape), x.new_tensor(std).reshape(shape)

    def unit(self, x: Tensor, facts: Normalised | None) -> Tensor:
        """What a size of 1 is in the input, ``[1, C, 1, ...]``."""
        std = self.normalisation(x, facts)[1]
        return 1 / std if self.units == "pixel" else torch.ones_like(std)

    def bounds(self, x: Tensor, facts: Normalised | None) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The lowest and the highest valid input, or None twice."""
        if not self.clip:
            return None, None
        mean, std = self.normalisation(x, facts)
        return -mean / std, (1 - mean) / std

    def check(self, x: Tensor, facts: Normalised | None) -> None:
        """Says that inputs are no pixels where they are to stay such; waits for the device.

        Raises:
            ValueError: If an input is outside the bounds.
        """
        low, high = self.bounds(x, facts)
        tolerance = 1e-3
        if low is not None and high is not None and bool(((x < low - tolerance) | (x > high + tolerance)).any()):
            raise ValueError(
                f"clip=True expects pixels of [0, 1] normalised by mean and std, but the input reaches from "
                f"{float(x.min()):.3g} to {float(x.max()):.3g}. Give mean= and std= of your normalisation, or set "
                "clip=False and sizes in the units of the input, for inputs that are no pixels."
            )

    def clipped(self, x: Tensor, facts: Normalised | None) -> Tensor:
        """The nearest valid input."""
        low, high = self.bounds(x, facts)
        return x if low is None else x.clamp(low, high)
