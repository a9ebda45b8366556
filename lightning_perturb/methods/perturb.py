"""Any cells of the taxonomy's lattice, listed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.counts import OptionalCountsModule
from lightning_perturb.core.inputs import float_input
from lightning_perturb.core.taxonomy import DIRECTIONS, GRANULARITIES, INFERENCES, TARGETS
from lightning_perturb.functional import one_hot
from lightning_perturb.lattice import Cell, Meta
from lightning_perturb.lattice.site import feature_site, label_site, logit_site, loss_site

_WORDS = {"target": TARGETS, "direction": DIRECTIONS, "inference": INFERENCES, "granularity": GRANULARITIES}


class Perturb(OptionalCountsModule):
    """Any cells of the taxonomy: perturbations by target, granularity, direction and inference [tax section 4].

    Each cell is an object whose class is the inference (``Prior``, ``Hyperparameter``, ``Regularization``,
    ``Adversarial``; ``Meta`` in :class:`MetaPerturb`). Several of them are mixed targets, levels or directions [tax 9,
    44, 47]: those of one target act in order, each on what the one before made.

    Args:
        perturbations: The cells; none is plain cross-entropy.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.OptionalCountsModule`.
    """

    coordinates = Coordinates(**_WORDS)

    def __init__(self, *args: Any, perturbations: list[Cell] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.perturbations = tuple(perturbations or ())
        if self.perturbations:
            # an instance stands where its cells stand
            self.coordinates = _union(self.perturbations)  # type: ignore[misc]
        self._declare()

    def _declare(self) -> None:
        for slot, cell in self.cells():
            cell.declare(self, slot)

    def cells(self, target: str | None = None) -> Iterator[tuple[str, Cell]]:
        """(slot, cell) of the cells of one target, or of all."""
        for number, cell in enumerate(self.perturbations):
            if target in (None, cell.target):
                yield f"cell_{number}", cell

    @property
    def needs_class_counts(self) -> bool:
        """Whether a cell reads them."""
        return any(cell.needs_counts for cell in self.perturbations)

    def perturb_input(self, batch: Batch) -> Batch:
        """x + Δx."""
        for slot, cell in self.cells("feature"):
            x = float_input(type(self).__name__, batch)
            batch = batch.with_input(cell(x, feature_site(self, slot, batch)))
        return batch

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + Δu."""
        moved = logits
        for slot, cell in self.cells("logit"):
            moved = cell(moved, logit_site(self, slot, batch, logits))
        if moved is not logits:
            self.tell(batch, "perturbation_norm", (moved - logits).detach().abs().sum(1))
        return moved

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """y + Δy."""
        target = batch.y
        for slot, cell in self.cells("label"):
            if target.ndim == 1:
                target = one_hot(target, self.num_classes, torch.promote_types(logits.dtype, torch.float32))
            target = cell(target, label_site(self, slot, batch, logits))
        return target

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + Δl."""
        for slot, cell in self.cells("loss"):
            loss = cell(loss, loss_site(self, slot, batch, logits))
        return loss

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """The cells' state."""
        for slot, cell in self.cells():
            cell.update(self, slot, outputs["logits"], batch.y)

    def start_epoch(self) -> None:
        """The cells' state."""
        for slot, cell in self.cells():
            cell.start_epoch(self, slot)


class MetaPerturb(MetaPerturbationModule, Perturb):
    """Any cells of the taxonomy, those among them that are learned on clean samples.

    A learned perturbation of the input acts after the others of the input, and needs the engine ``higher``, which
    ``auto`` takes by itself.

    Args:
        perturbations: The cells, at least one of class ``Meta``.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule` and
            :class:`~lightning_perturb.methods.Perturb`.
    """

    coordinates = Coordinates(**_WORDS)

    def __init__(self, *args: Any, perturbations: list[Cell] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, perturbations=perturbations, **kwargs)
        # θ can be declared once the base stands
        super()._declare()

    def _declare(self) -> None:
        pass

    def perturb_input(self, batch: Batch) -> Batch:
        """x + Δx; notes what a learned perturbation will add."""
        for slot, cell in self.cells("feature"):
            x, site = float_input(type(self).__name__, batch), feature_site(self, slot, batch)
            if isinstance(cell, Meta):
                cell.prepare(x, site)
            else:
                batch = batch.with_input(cell(x, site))
        return batch

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits of the input with its learned perturbations, as they are now."""
        for slot, cell in self.cells("feature"):
            if isinstance(cell, Meta) and f"{slot}_unit" in batch.extra:
                x = float_input(type(self).__name__, batch)
                batch = batch.with_input(cell.enter(x, feature_site(self, slot, batch)))
        return super().outputs(call, batch)


def _union(cells: tuple[Cell, ...]) -> Coordinates:
    """The words of all cells, in the taxonomy's order."""
    stated = [cell.coordinates for cell in cells]
    return Coordinates(
        **{name: tuple(word for word in words if any(word in getattr(one, name) for one in stated))
           for name, words in _WORDS.items()}
    )  # fmt: skip
