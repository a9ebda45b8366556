"""Cells that move a target along a known pattern, by an amount that a subclass says."""

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.lattice.cell import At, Direction, Granularity, SplitCell, Target
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.pattern import (
    LogitGradient,
    LogPrior,
    Noise,
    OwnLogit,
    Pattern,
    Poly,
    Predicted,
    Relative,
    Shift,
    Slack,
    Uniform,
    Unlikely,
)
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import Split

#: amounts that are felt and break nothing, where none is given
USUAL = {"feature": 0.1, "logit": 1.0, "label": 0.1, "loss": 0.5}


class AmountCell(SplitCell):
    """A perturbation a d of a known pattern d, with an amount a for each sample, category or for the corpus.

    Where the pattern has a direction of its own (the given class's logit, the predicted class), the cell's direction
    chooses its sign or its variant. Other patterns (noise, a shift, the class prior, the uniform label) come as they
    are under ``mixed``. Under ``positive`` and ``negative`` they are turned round for those samples or groups whose
    mean loss they move the other way, where they can be, and left out where that does not help.

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        pattern: The pattern; None takes the usual one of target, granularity and direction.
        split: As of :class:`~lightning_perturb.lattice.SplitCell`, for patterns with a direction of their own.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If the pattern is of another target or does not go with the direction or the split.
    """

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        pattern: Pattern | None = None,
        split: Split | None = None,
        at: At = "input",
    ) -> None:
        self.pattern = self.usual_pattern(target, granularity, direction) if pattern is None else pattern
        super().__init__(target, granularity, direction, split, at)
        name = type(self.pattern).__name__
        if self.pattern.target != target:
            raise ValueError(f"pattern={name} perturbs the {self.pattern.target}, not the {target}.")
        lowers, signed = self.pattern.lowers, self.pattern.signed
        if not signed and lowers is not None and direction == ("negative" if lowers else "positive"):
            goes = "raises" if lowers is False else "lowers"
            raise ValueError(f"pattern={name} {goes} every loss, which is not direction={direction!r}.")
        if direction == "mixed" and lowers is not None and not signed:
            raise ValueError(f"pattern={name} moves every loss one way, which is not direction='mixed'.")
        if split is not None and lowers is None:
            raise ValueError(
                f"split={type(split).__name__} chooses a sign, which pattern={name} does not have. Leave it away."
            )
        if isinstance(self.pattern, Relative) and (granularity == "corpus" or self._constant):
            raise ValueError(
                f"{self} with pattern=Relative multiplies every loss by one factor, which only changes the learning "
                "rate. Take Poly, or Slack with direction='positive'."
            )

    @staticmethod
    def usual_pattern(target: str, granularity: str, direction: str) -> Pattern:
        """The pattern that goes with target, granularity and direction."""
        mixed = direction == "mixed"
        if target == "feature":
            # noise that several samples share in size alone is no perturbation that they share
            return Noise() if granularity == "sample" else Shift()
        if target == "logit":
            if granularity == "corpus" and mixed:
                return LogPrior()
            return LogitGradient() if granularity == "sample" else OwnLogit()
        if target == "label":
            return Uniform() if mixed else Predicted() if direction == "positive" else Unlikely()
        return Poly() if granularity == "corpus" else Relative()

    @property
    def _constant(self) -> bool:
        """Whether all samples that move one way get the same amount."""
        return False

    @property
    def _signed(self) -> bool:
        """Whether the direction decides the sign of the pattern."""
        return self.pattern.lowers is not None and self.pattern.signed

    @property
    def _splits(self) -> bool:
        return self._signed and self._sign_is_chosen

    @property
    def needs_counts(self) -> bool:
        """Whether pattern or split read the class frequencies."""
        return self.pattern.needs_counts or super().needs_counts

    @property
    def reads_features(self) -> bool:
        """Whether it acts on deep features, or its pattern reads them."""
        return self.pattern.reads_features or super().reads_features

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """The pattern's state."""
        self.pattern.declare(module, slot)

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """The pattern's state."""
        self.pattern.update(module, slot, outputs, batch)

    def start_epoch(self, module: PerturbationModule, slot: str) -> None:
        """The pattern's state."""
        self.pattern.start_epoch(module, slot)

    def amount(self, site: Site, groups: Groups) -> Tensor:
        """The amounts ``[G]``, or ``[C]`` where the pattern takes them by class."""
        raise NotImplementedError(f"{type(self).__name__} must say its amounts.")

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        """The value moved along the pattern."""
        groups = self.groups(site)
        unit = self.pattern.unit(value, site)
        amount = self.amount(site, groups)
        return self.moved(value, self.turned(value, amount, unit, site, groups), amount, groups)

    def turned(self, value: Tensor, amount: Tensor, unit: Tensor, site: Site, groups: Groups) -> Tensor:
        """The unit, with the sign that goes the cell's way for each sample; 0 where none does."""
        lowers = self.pattern.lowers
        if lowers is not None and (self._splits or self.split is not None):
            signs = self.signs(value, site).to(unit.dtype)
            # what has one sign goes its way, or is left alone
            signs = (-signs if lowers else signs) if self.pattern.signed else signs.abs()
            return unit * _rows(signs, unit)
        if lowers is not None or self.direction == "mixed":
            return unit
        way = 1.0 if self.direction == "negative" else -1.0
        with torch.no_grad():
            plain, chosen = site.losses(value.detach()), None
            for sign in (1.0, -1.0) if self.pattern.signed else (1.0,):
                moved = self.moved(value.detach(), sign * unit.detach(), amount.detach(), groups)
                goes = groups.spread(way * groups.mean(site.losses(moved) - plain) >= 0).to(unit.dtype) * sign
                chosen = goes if chosen is None else torch.where(chosen == 0, goes, chosen)
        assert chosen is not None
        return unit * _rows(chosen, unit)

    def moved(self, value: Tensor, unit: Tensor, amount: Tensor, groups: Groups) -> Tensor:
        """The value moved by amounts of its groups, or of the classes, along a unit."""
        rows = amount if self._by_class else _rows(groups.spread(amount), value)
        return self.pattern.apply(value, rows.to(value.dtype), unit)

    @property
    def _by_class(self) -> bool:
        return self.pattern.by_class and self.granularity == "category"

    @property
    def _sign_is_chosen(self) -> bool:
        return True

    def check_largest(self, name: str, value: float) -> None:
        """Raises a ValueError if an amount is negative or beyond what has a meaning for the pattern."""
        check_positive(name, value, zero=True)
        limit = self.pattern.limit(self.direction)
        if value > limit:
            pattern = type(self.pattern).__name__
            raise ValueError(
                f"{name}={value!r} is beyond {limit:g}, where {pattern} has gone all the way. Choose a smaller {name}."
            )


def given_pattern(target: str, granularity: str, direction: str) -> Pattern:
    """The usual pattern of an amount that is given, not learned."""
    # a constant has no gradient: it can be given, not learned
    if (target, granularity, direction) == ("loss", "corpus", "positive"):
        return Slack()
    return AmountCell.usual_pattern(target, granularity, direction)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
