"""Amounts that are learned on clean samples."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_used
from lightning_perturb.core import MetaPerturbationModule, PerturbationModule
from lightning_perturb.lattice.amount.base import AmountCell
from lightning_perturb.lattice.cell import At, Direction, Granularity, Target
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.pattern import Pattern
from lightning_perturb.lattice.site import Site
from lightning_perturb.nets import MetaMLP


class Meta(AmountCell):
    """A perturbation whose amount is learned on clean samples [tax 28-30, 39-41]; for :class:`MetaPerturb` alone.

    A sample's amount is a learned function of its unperturbed loss, ``bound`` (1 - sigmoid(MLP(l))), a category's or
    the corpus's a learned number. Under ``positive`` and ``negative`` it is at least 0, under ``mixed`` it may have
    either sign where the pattern has one.

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        start: First amount of categories and corpus.
        bound: Largest amount. None takes 1 for labels, losses and samples, none for others.
        hidden: Width of the network that gives the amounts of samples.
        pattern: As of :class:`~lightning_perturb.lattice.AmountCell`.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If a number is out of range.
    """

    inference: ClassVar[str] = "meta"

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        start: float = 0.0,
        bound: float | None = None,
        hidden: int = 100,
        pattern: Pattern | None = None,
        at: At = "input",
    ) -> None:
        super().__init__(target, granularity, direction, pattern, at=at)
        limited = granularity == "sample" or target in ("label", "loss")
        self.bound = min(self.pattern.largest, 1.0 if limited else float("inf")) if bound is None else bound
        if not self.bound > 0:
            raise ValueError(f"bound={bound} must be above 0, or no amount can be learned.")
        if self.bound < float("inf") or self.pattern.limit(direction) < float("inf"):
            self.check_largest("bound", self.bound)
        if abs(start) > self.bound or (start < 0 and not self._both_signs):
            low = -self.bound if self._both_signs else 0.0
            raise ValueError(f"start={start} is outside [{low:g}, {self.bound:g}] of {self}.")
        if granularity == "sample" and start:
            raise ValueError(
                f"start={start} is a number of categories or the corpus; a network gives those of samples."
            )
        if granularity == "sample" and self.bound == float("inf"):
            raise ValueError("bound=inf leaves the amounts of samples, which are shares of it, without a scale.")
        check_positive("hidden", hidden)
        check_used("hidden", hidden, 100, "granularity", granularity, ("sample",))
        self.start = start
        self.hidden = hidden

    @property
    def reads_losses(self) -> bool:
        """Whether amounts read the losses with nothing perturbed."""
        return self.granularity == "sample" or super().reads_losses

    @property
    def _both_signs(self) -> bool:
        return (self.pattern.signed and self.direction == "mixed") or self._free_sign

    @property
    def _free_sign(self) -> bool:
        return self.pattern.signed and self.pattern.lowers is None

    @property
    def _sign_is_chosen(self) -> bool:
        # what is learned has its own sign
        return self.direction != "mixed"

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """The pattern's state, and θ: a network, or numbers."""
        super().declare(module, slot)
        if not isinstance(module, MetaPerturbationModule):
            raise ValueError(
                f"{self} is learned on clean samples, which {type(module).__name__} does not read. Use MetaPerturb."
            )
        if self.granularity == "sample":
            module.add_meta(f"{slot}_net", MetaMLP(1, self.hidden))
            return
        count = module.num_classes if self.granularity == "category" else 1
        low = -self.bound if self._both_signs else 0.0
        module.add_meta(f"{slot}_amount", torch.full((count,), self.start), low, self.bound)

    def amount(self, site: Site, groups: Groups) -> Tensor:
        """As learned so far, with its gradient."""
        if self.granularity == "sample":
            net: Any = getattr(site.module, f"{site.slot}_net")
            share: Tensor = net(site.plain_losses()[:, None].to(site.module.dtype)).sigmoid()[:, 0]
            return self.bound * (1 - (2 if self._both_signs else 1) * share)
        amounts: Tensor = getattr(site.module, f"{site.slot}_amount")
        return amounts if self._by_class else amounts[groups.ids]

    # before the network -------------------------------------------------------------------------------------------

    def prepare(self, value: Tensor, site: Site) -> None:
        """Notes in the batch what :meth:`enter` adds, where θ stands before the network.

        Args:
            value: The input.
            site: Where the cell acts.
        """
        groups = self.groups(site)
        with torch.no_grad():
            if self.granularity == "sample":
                site.plain_losses()
            unit = self.turned(value, self.amount(site, groups), self.pattern.unit(value, site), site, groups)
        site.batch.extra[f"{site.slot}_unit"] = unit

    def enter(self, value: Tensor, site: Site) -> Tensor:
        """The input with the noted perturbation, as θ is now."""
        groups = self.groups(site)
        return self.moved(value, site.batch.extra[f"{site.slot}_unit"], self.amount(site, groups), groups)
