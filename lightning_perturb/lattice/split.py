"""Which samples or classes get a loss-lowering perturbation, where a cell has both directions."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.functional import frequency_split, hard_by_share, hard_by_value
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.site import Site


class Split:
    """A split of samples or classes into those whose loss falls and those whose loss rises.

    Attributes:
        of: ``sample`` or ``category``.
        needs_counts: Whether it reads the class frequencies.
    """

    of: ClassVar[str] = "sample"
    needs_counts: ClassVar[bool] = False

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """Which samples' loss is to fall ``[B]``.

        Args:
            value: The target's value as the cell finds it.
            site: Where the cell acts.
        """
        raise NotImplementedError(f"{type(self).__name__} must say whose loss falls.")


class HardestSamples(Split):
    """The share of the batch, over all devices, with the largest unperturbed losses [tax 56, 57].

    Args:
        share: Share of samples whose loss falls, about the noise rate.
    """

    def __init__(self, share: float = 0.15) -> None:
        check_rate("share", share)
        self.share = share

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """Exactly ``round(share B)`` samples of all devices' B."""
        (losses,), own = gather_batch(site.plain_losses())
        return hard_by_share(losses, self.share)[own]


class LargeLosses(Split):
    """Samples whose unperturbed loss reaches a threshold [tax 56, 57].

    Args:
        tau: τ, the threshold.
    """

    def __init__(self, tau: float) -> None:
        check_positive("tau", tau, zero=True)
        self.tau = tau

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """l >= τ."""
        return hard_by_value(site.plain_losses(), self.tau)


class ConfidentClasses(Split):
    """Classes whose mean confidence in the batch is above the mean of the classes that occur there [lpl 27, 28].

    The confidence is that of the target as the cell finds it, after the cells before it.
    """

    of = "category"

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """q_c > mean q."""
        groups = Groups("category", site.batch.y)
        with torch.no_grad():
            confidence = groups.mean((-site.losses(value)).exp())
        return groups.spread(confidence > confidence.mean())


class FrequentClasses(Split):
    """The most frequent classes, the head of a long tail [lpl 29].

    Args:
        share: Share of the classes that are the head.
    """

    of = "category"
    needs_counts = True

    def __init__(self, share: float = 0.5) -> None:
        check_rate("share", share)
        self.share = share

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """The class is of the head."""
        counts = site.module.class_counts
        head: Tensor = frequency_split(counts, int(self.share * len(counts) + 1e-9)) < 0
        return head[site.batch.y]
