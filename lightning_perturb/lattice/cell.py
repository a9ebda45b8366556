"""One cell of the lattice: a perturbation of one target at one level, found in one way."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.plain import Plain
from lightning_perturb.core.taxonomy import GRANULARITIES, TARGETS
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.meaning import CELL_DIRECTIONS, no_meaning
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import ConfidentClasses, HardestSamples, Split

Target = Literal["feature", "logit", "label", "loss"]
Granularity = Literal["sample", "category", "corpus"]
Direction = Literal["positive", "negative", "mixed"]
At = Literal["input", "deep"]


class Cell(Plain):
    """One perturbation of the training loss; its class is the way in which it is found.

    It holds options alone: state is the method's, under the cell's slot.

    Attributes:
        inference: The way, a word of the taxonomy.

    Args:
        target: What is perturbed: the ``feature``, the ``logit`` vector, the ``label`` or the ``loss``.
        granularity: Who shares one perturbation: a ``sample``, a ``category`` or the ``corpus``.
        direction: ``positive`` lowers losses, ``negative`` raises them, ``mixed`` does both. For one perturbation that
            several samples share, it is their mean loss.
        at: Which feature: the ``input`` of the network, or the ``deep`` feature that enters its classifier [tax 4].

    Raises:
        ValueError: If a word is unknown, or the cell has no meaning.
    """

    inference: ClassVar[str]

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        at: At = "input",
    ) -> None:
        check_choice("target", target, TARGETS)
        check_choice("granularity", granularity, GRANULARITIES)
        check_choice("direction", direction, CELL_DIRECTIONS)
        check_choice("at", at, ("input", "deep"))
        self.target = target
        self.granularity = granularity
        self.direction = direction
        self.at = at
        if at != "input" and target != "feature":
            raise ValueError(f"at={at!r} says which feature, but {self} perturbs none. Leave it away.")
        reason = no_meaning(target, granularity, self.inference, direction)
        if reason is not None:
            raise ValueError(f"{self} has no meaning: {reason}.")

    def __str__(self) -> str:
        words = f"target={self.target}, granularity={self.granularity}, direction={self.direction}"
        return f"{type(self).__name__}({words}{', at=deep' if self.at == 'deep' else ''})"

    @property
    def coordinates(self) -> Coordinates:
        """The cell's place in the taxonomy."""
        both = ("positive", "negative")
        return Coordinates.of(
            self.target, both if self.direction == "mixed" else self.direction, self.inference, self.granularity
        )

    @property
    def place(self) -> str:
        """Where the cell acts: ``feature`` (the input), ``deep``, ``logit``, ``label`` or ``loss``."""
        return "deep" if self.at == "deep" else self.target

    @property
    def needs_counts(self) -> bool:
        """Whether it reads the class frequencies."""
        return False

    @property
    def reads_losses(self) -> bool:
        """Whether it reads the losses with nothing perturbed."""
        return False

    @property
    def reads_features(self) -> bool:
        """Whether it reads what enters the classifier."""
        return self.at == "deep"

    def refuse(self, reason: str, **given: object) -> None:
        """Raises a ValueError if one of the arguments was given, that is, is not None.

        Args:
            reason: What it is about the cell that leaves them unused.
            **given: The arguments.
        """
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is not used by {self}, {reason}. Leave it away.")

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Declares the cell's state, if it has any, as the module's.

        Args:
            module: The method.
            slot: Prefix of the state's names.
        """

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        """The perturbed value of the target.

        Args:
            value: The target's value after the cells before this one: x ``[B, ...]``, u or y ``[B, C]``, l ``[B]``.
            site: Where the cell acts.
        """
        raise NotImplementedError(f"{type(self).__name__} must perturb its target.")

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Writes the cell's state after a batch's loss, without gradient."""

    def start_epoch(self, module: PerturbationModule, slot: str) -> None:
        """Runs before the first batch of an epoch, as the method's hook of that name."""


class SplitCell(Cell):
    """A cell whose direction may differ between samples or classes.

    Args:
        target: As of :class:`Cell`.
        granularity: As of :class:`Cell`.
        direction: As of :class:`Cell`.
        split: Which samples' or classes' losses fall. Those of the rest rise under ``mixed``; under ``positive`` the
            rest is left alone, under ``negative`` the split itself. None takes all; for ``mixed`` the hardest half of
            the samples or the confident classes.
        at: As of :class:`Cell`.

    Raises:
        ValueError: If the split does not fit the granularity.
    """

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        split: Split | None = None,
        at: At = "input",
    ) -> None:
        super().__init__(target, granularity, direction, at)
        if split is not None and granularity != "sample" and split.of != granularity:
            raise ValueError(
                f"split={type(split).__name__} tells apart samples of one perturbation: {self} shares it. Take a split "
                "of classes at category level, none at corpus level."
            )
        if split is None and direction == "mixed" and self._splits:
            if granularity == "corpus":
                raise ValueError(
                    f"{self} has one sign for the whole corpus, and so one direction. Take the category level, whose "
                    "split gives both."
                )
            split = HardestSamples(0.5) if granularity == "sample" else ConfidentClasses()
        self.split = split

    @property
    def _splits(self) -> bool:
        """Whether ``mixed`` needs a split, to say whose sign is which; otherwise it leaves signs as they come."""
        return True

    @property
    def needs_counts(self) -> bool:
        """Whether the split reads the class frequencies."""
        return self.split is not None and self.split.needs_counts

    @property
    def reads_losses(self) -> bool:
        """Whether the split reads the losses with nothing perturbed."""
        return self.split is not None and self.split.reads_losses

    def signs(self, value: Tensor, site: Site) -> Tensor:
        """1 for samples whose loss is to rise, -1 for those whose loss is to fall, 0 for those left alone ``[B]``."""
        dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
        if self.split is None:
            falls = torch.full((len(value),), self.direction == "positive", device=value.device)
        else:
            falls = self.split.positive(value, site)
        signs = torch.where(falls, -1.0, 1.0).to(dtype)
        if self.direction == "mixed":
            return signs
        return torch.where(falls == (self.direction == "positive"), signs, 0.0)

    def groups(self, site: Site) -> Groups:
        """Who shares a perturbation in this batch."""
        return Groups(self.granularity, site.batch.y)
