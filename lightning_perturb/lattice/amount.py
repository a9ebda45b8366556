"""Cells that move a target along a known pattern: the amount is known, given, or learned."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_used
from lightning_perturb.core import Batch, MetaPerturbationModule, PerturbationModule
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
from lightning_perturb.nets import MetaMLP

#: amounts that are felt and break nothing, where none is given
_USUAL = {"feature": 0.1, "logit": 1.0, "label": 0.1, "loss": 0.5}


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
        self.strength = _USUAL[target] if strength is None else strength
        self.check_largest("strength", self.strength)

    @staticmethod
    def usual_pattern(target: str, granularity: str, direction: str) -> Pattern:
        """As of the base; one amount for all samples needs a term that is none of their factors."""
        if target == "loss" and granularity == "sample":
            return Poly()
        return _given_pattern(target, granularity, direction)

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
        self.value = _USUAL[target] if value is None else value
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
        return _given_pattern(target, granularity, direction)

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


def _given_pattern(target: str, granularity: str, direction: str) -> Pattern:
    # a constant has no gradient: it can be given, not learned
    if (target, granularity, direction) == ("loss", "corpus", "positive"):
        return Slack()
    return AmountCell.usual_pattern(target, granularity, direction)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
