"""Which samples or classes get a loss-lowering perturbation, where a cell has both directions."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.plain import Plain
from lightning_perturb.functional import frequency_split, hard_by_share, hard_by_value
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.site import Site


class Split(Plain):
    """A split of samples or classes into those whose loss falls and those whose loss rises.

    Attributes:
        of: ``sample`` or ``category``.
        needs_counts: Whether it reads the class frequencies.
        reads_losses: Whether it reads the losses with nothing perturbed.
    """

    of: ClassVar[str] = "sample"
    needs_counts: ClassVar[bool] = False
    reads_losses: ClassVar[bool] = False

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

    reads_losses = True

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

    reads_losses = True

    def __init__(self, tau: float) -> None:
        check_positive("tau", tau, zero=True)
        self.tau = tau

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """l >= τ."""
        return hard_by_value(site.plain_losses(), self.tau)


class PacedLosses(Split):
    """Samples whose unperturbed loss reaches a threshold that grows by epoch, as self-paced learning [tax 56, 65].

    Args:
        first: τ in the first epoch. None takes 1.2 log C, a little above the loss of a guess.
        last: τ from epoch ``epochs`` on, above ``first``; None takes twice ``first``.
        epochs: Epochs over which τ grows in a straight line; None takes all epochs of the Trainer.
    """

    reads_losses = True

    def __init__(self, first: float | None = None, last: float | None = None, epochs: int | None = None) -> None:
        for name, value in (("first", first), ("last", last), ("epochs", epochs)):
            if value is not None:
                check_positive(name, value)
        if first is not None and last is not None and last <= first:
            raise ValueError(f"last={last} must be above first={first}: the pace grows [tax 65].")
        self.first = first
        self.last = last
        self.epochs = epochs

    def positive(self, value: Tensor, site: Site) -> Tensor:
        """l >= τ in this epoch."""
        return hard_by_value(site.plain_losses(), self.tau(site.module))

    def tau(self, module: PerturbationModule) -> float:
        """τ in the current epoch of a method.

        Raises:
            ValueError: If the Trainer has no last epoch, or ``last`` is not above what ``first`` is by default.
        """
        epochs = self.epochs or module.trainer.max_epochs
        if not epochs or epochs < 0:
            raise ValueError("The Trainer has no max_epochs to stretch the pace over. Set max_epochs or epochs.")
        first = 1.2 * math.log(module.num_classes) if self.first is None else self.first
        last = 2.0 * first if self.last is None else self.last
        if last <= first:
            raise ValueError(f"last={last} must be above the first threshold, {first:g}: the pace grows [tax 65].")
        return first + min(module.current_epoch / max(epochs - 1, 1), 1.0) * (last - first)


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
        return head[site.ids(self)]
