"""What a perturbation of size 1 is: the direction in which an amount moves a target."""

from typing import ClassVar

from torch import Tensor

from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.core.plain import Plain
from lightning_perturb.lattice.site import Site


class Pattern(Plain):
    """A direction in one target.

    Attributes:
        target: The target.
        lowers: What an amount above 0 does to every loss: True lowers it, False raises it, None depends on the sample.
        signed: Whether an amount below 0 is the opposite; otherwise it has no meaning.
        by_class: Whether amounts of categories belong to the classes of the logits, not to the sample's own class.
        largest: The largest amount that has a meaning.
        reads_features: Whether it reads the deep features and the classifier.
        needs_counts: Whether it reads the class frequencies.
    """

    target: ClassVar[str]
    lowers: ClassVar[bool | None] = None
    signed: ClassVar[bool] = False
    by_class: ClassVar[bool] = False
    largest: ClassVar[float] = float("inf")
    needs_counts: ClassVar[bool] = False
    reads_features: ClassVar[bool] = False

    def limit(self, direction: str) -> float:
        """The largest amount that has a meaning in a direction."""
        return self.largest

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """The perturbation of amount 1, in the shape of the value.

        Args:
            value: The target's value as the cell finds it.
            site: Where the cell acts.
        """
        raise NotImplementedError(f"{type(self).__name__} must say its unit.")

    def apply(self, value: Tensor, amount: Tensor, unit: Tensor) -> Tensor:
        """The value moved by an amount that broadcasts to it."""
        return value + amount * unit

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Declares state, as :meth:`Cell.declare`."""

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Writes state, as :meth:`Cell.update`."""

    def start_epoch(self, module: PerturbationModule, slot: str) -> None:
        """Runs at the start of an epoch, as :meth:`Cell.start_epoch`."""
