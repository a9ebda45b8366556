"""Amounts that are given as numbers."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import PerturbationModule
from lightning_perturb.lattice.amount.base import USUAL, AmountCell, given_pattern
from lightning_perturb.lattice.cell import At, Direction, Granularity, Target
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.pattern import Pattern, Poly
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import Split


class Hyperparameter(AmountCell):
    """A perturbation that is given as numbers, to be tuned [tax 4.4.1 (2)].

    A sample's amount is ``value`` (1 - p_y)^``power``, with p_y from the unperturbed prediction: the worse a sample is
    learnt, the larger.

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        value: The amount; for categories also one number each. None takes 0.1 (input), 1 (logits), 0.1 (labels) or 0.5
            (loss, where one number for all classes goes with ``Poly``).
        power: How fast amounts of samples grow with the error; 0 gives all the same. None takes 1 for samples.
        pattern: As of :class:`~lightning_perturb.lattice.AmountCell`.
        split: As of :class:`~lightning_perturb.lattice.AmountCell`.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If a number is out of range, or several are given where there is one amount.
    """

    inference: ClassVar[str] = "hyperparameter"

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        value: float | list[float] | None = None,
        power: float | None = None,
        pattern: Pattern | None = None,
        split: Split | None = None,
        at: At = "input",
    ) -> None:
        sample = granularity == "sample"
        self.value = USUAL[target] if value is None else value
        if target == "loss" and granularity == "category" and pattern is None and not isinstance(self.value, list):
            # one factor for all classes only changes the learning rate
            pattern = Poly()
        self.power = (1.0 if sample else 0.0) if power is None else power
        check_positive("power", self.power, zero=True)
        self.numbers = list(self.value) if isinstance(self.value, list) else [self.value]
        super().__init__(target, granularity, direction, pattern, split, at)
        if self.power and not sample:
            raise ValueError(f"power={power} makes amounts of samples, which {self} does not have. Leave it away.")
        if isinstance(self.value, list) and granularity != "category":
            raise ValueError(f"value={value} gives one number for each category, but {self} has none. Give one number.")
        for number in self.numbers:
            self.check_largest("value", number)

    @staticmethod
    def usual_pattern(target: str, granularity: str, direction: str) -> Pattern:
        """As of the base; one number that lowers the loss of the corpus is the slack of nu-SVM [tax 17]."""
        return given_pattern(target, granularity, direction)

    @property
    def reads_losses(self) -> bool:
        """Whether amounts or split read the losses with nothing perturbed."""
        return (self.granularity == "sample" and self.power > 0) or super().reads_losses

    @property
    def _constant(self) -> bool:
        return not self.power and len(set(self.numbers)) == 1 and self.direction != "mixed" and self.split is None

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """As in the base; checks that every category has its number."""
        super().declare(module, slot)
        if isinstance(self.value, list) and len(self.value) != module.num_classes:
            raise ValueError(
                f"value={self.value} has {len(self.value)} numbers for {module.num_classes} classes. Give one each."
            )

    def amount(self, site: Site, groups: Groups) -> Tensor:
        """As given."""
        if self.granularity == "sample":
            wrong = -torch.expm1(-site.plain_losses())
            return wrong.pow(self.power) * self.numbers[0]
        numbers = self.numbers if len(self.numbers) > 1 else self.numbers * site.module.num_classes
        by_class = torch.tensor(numbers, dtype=site.dtype, device=groups.place.device)
        return by_class if self._by_class else by_class[groups.ids]
