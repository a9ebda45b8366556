"""Directions in the input."""

from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core import random as keyed_random
from lightning_perturb.lattice.pattern.base import Pattern
from lightning_perturb.lattice.pattern.partner import to_partner
from lightning_perturb.lattice.site import Site


class Noise(Pattern):
    """Standard normal noise, drawn for each sample and epoch; an amount is its standard deviation in the input."""

    target = "feature"
    signed = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """n."""
        return site.module.normal(f"{site.slot} noise", site.batch, *value.shape[1:]).to(value.dtype)


class Partner(Pattern):
    """The way to another sample of the batch, (1 - w)(x_j - x) with w from Beta(α, α) [Mixup]; amount 1 goes it all.

    Args:
        alpha: α.
    """

    target = "feature"
    largest = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        check_positive("alpha", alpha)
        self.alpha = alpha

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """(1 - w)(x_j - x)."""
        return to_partner(value, site, self.alpha)


class Shift(Pattern):
    """A given shift of some samples, the same ones in every epoch.

    Args:
        by: The shift at amount 1: a number, or one for each channel (feature).
        share: Share of the samples that are shifted; below 1, each sample's index must be known.
    """

    target = "feature"
    signed = True

    def __init__(self, by: float | list[float] = 1.0, share: float = 1.0) -> None:
        check_rate("share", share)
        self.by = by
        self.share = share

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """The shift of samples that are chosen, 0 of others."""
        module = site.module
        by = value.new_tensor(self.by)
        if by.ndim and len(by) != value.shape[1]:
            raise ValueError(
                f"by={self.by} has {len(by)} numbers for inputs with {value.shape[1]} channels. Give one each."
            )
        rows = value.new_ones(len(value), *[1] * (value.ndim - 1))
        if self.share < 1:
            drawn = keyed_random.uniform(module._draw_seed, f"{site.slot} shift", 0, module.indices(site.batch))
            rows = (drawn < self.share).to(value.dtype).view_as(rows)
        return (rows * by.reshape(1, -1, *[1] * (value.ndim - 2))).expand_as(value)
