"""Amounts that are fixed before training by what is known."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.lattice.amount.base import USUAL, AmountCell, given_pattern
from lightning_perturb.lattice.cell import At, Direction, Granularity, Target
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.pattern import Pattern, Poly
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import Split


class Prior(AmountCell):
    """A perturbation that is fixed before training by what is known [tax 4.4.1 (1)].

    Categories get an amount by their frequency: ``strength`` (n_min / n_c)^``power``, as LDAM's margins.
    Samples and the corpus have the one amount: with the same pattern, their cells are the same.

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        strength: The amount, that of the rarest category. None takes 0.1 (input), 1 (logits), 0.1 (labels) or 0.5
            (loss).
        power: How fast amounts of categories fall with their frequency; 0 gives all the same. None takes 1/4, and 0
            where amounts belong to no category.
        pattern: As of :class:`~lightning_perturb.lattice.AmountCell`.
        split: As of :class:`~lightning_perturb.lattice.AmountCell`.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If a number is out of range, or ``power`` is given where no category has an amount.
    """

    inference: ClassVar[str] = "prior"

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        strength: float | None = None,
        power: float | None = None,
        pattern: Pattern | None = None,
        split: Split | None = None,
        at: At = "input",
    ) -> None:
        category = granularity == "category"
        self.power = (0.25 if category else 0.0) if power is None else power
        check_positive("power", self.power, zero=True)
        super().__init__(target, granularity, direction, pattern, split, at)
        if self.power and not category:
            raise ValueError(f"power={power} weighs categories, which {self} does not have. Leave it away.")
        self.strength = USUAL[target] if strength is None else strength
        self.check_largest("strength", self.strength)

    @staticmethod
    def usual_pattern(target: str, granularity: str, direction: str) -> Pattern:
        """As of the base; one amount for all samples needs a term that is none of their factors."""
        if target == "loss" and granularity == "sample":
            return Poly()
        return given_pattern(target, granularity, direction)

    @property
    def _constant(self) -> bool:
        return not self.power and self.direction != "mixed" and self.split is None

    @property
    def needs_counts(self) -> bool:
        """Whether amounts, pattern or split read the class frequencies."""
        return self.power > 0 or super().needs_counts

    def amount(self, site: Site, groups: Groups) -> Tensor:
        """The same for all, or by frequency."""
        if not self.power:
            shape = site.module.num_classes if self._by_class else len(groups.ids) or len(groups.place)
            return torch.full((shape,), self.strength, dtype=site.dtype, device=groups.place.device)
        counts = site.module.class_counts.double()
        by_class = self.strength * (counts.min() / counts) ** self.power
        return by_class if self._by_class else by_class[groups.ids]
