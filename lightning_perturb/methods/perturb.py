"""Any cells of the taxonomy's lattice, listed."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.counts import OptionalCountsModule
from lightning_perturb.core.features import FeatureReader
from lightning_perturb.core.inputs import float_input
from lightning_perturb.core.plain import from_plain
from lightning_perturb.core.taxonomy import DIRECTIONS, GRANULARITIES, INFERENCES, TARGETS
from lightning_perturb.functional import one_hot
from lightning_perturb.lattice import Cell, Meta
from lightning_perturb.lattice.site import deep_site, feature_site, label_site, logit_site, loss_site

_WORDS = {"target": TARGETS, "direction": DIRECTIONS, "inference": INFERENCES, "granularity": GRANULARITIES}


class Perturb(OptionalCountsModule):
    """Any cells of the taxonomy: perturbations by target, granularity, direction and inference [tax section 4].

    Each cell is an object whose class is the inference (``Prior``, ``Hyperparameter``, ``Regularization``,
    ``Adversarial``; ``Meta`` in :class:`MetaPerturb`). Several of them are mixed targets, levels or directions [tax 9,
    44, 47]: those of one target act in order, each on what the one before made. Cells that are made of plain data are
    in the checkpoint.

    Args:
        perturbations: The cells; none is plain cross-entropy.
        classifier: Dotted name of the layer, an ``nn.Linear``, that gives the network's logits, for cells that read or
            move deep features; None takes the ``nn.Linear`` that was registered last.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.OptionalCountsModule`.
    """

    coordinates = Coordinates(**_WORDS)

    def __init__(
        self, *args: Any, perturbations: list[Cell] | None = None, classifier: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.perturbations = _cells(perturbations)
        self.classifier = classifier
        reading = [cell for cell in self.perturbations if cell.reads_features]
        if classifier is not None and not reading:
            raise ValueError(f"classifier={classifier!r} is read by no cell. Leave it away, or list one at='deep'.")
        self._reader = FeatureReader(str(reading[0]), self.net, classifier) if reading else None
        if self.perturbations:
            # an instance stands where its cells stand
            self.coordinates = _union(self.perturbations)  # type: ignore[misc]
        self._declare()

    def _declare(self) -> None:
        for slot, cell in self.cells():
            cell.declare(self, slot)

    def cells(self, place: str | None = None) -> Iterator[tuple[str, Cell]]:
        """(slot, cell) of the cells that act at one place, or of all.

        Args:
            place: ``feature`` (the input), ``deep``, ``logit``, ``label`` or ``loss``.
        """
        for number, cell in enumerate(self.perturbations):
            if place in (None, cell.place):
                yield f"cell_{number}", cell

    @property
    def needs_class_counts(self) -> bool:
        """Whether a cell reads them."""
        return any(cell.needs_counts for cell in self.perturbations)

    def perturb_input(self, batch: Batch) -> Batch:
        """x + Δx."""
        for slot, cell in self._on_input(batch):
            x = float_input(type(self).__name__, batch)
            batch = batch.with_input(cell(x, feature_site(self, slot, batch)))
        return batch

    def _on_input(self, batch: Batch) -> list[tuple[str, Cell]]:
        """The cells of the input, after a look at the losses before them where any cell wants it."""
        found = list(self.cells("feature"))
        if found and any(cell.reads_losses for cell in self.perturbations):
            float_input(type(self).__name__, batch)
            feature_site(self, found[0][0], batch).plain_losses()
        return found

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits; of h + Δh where there are cells of deep features h, with these and the classifier's weight."""
        if self._reader is None or self.phase == "warmup":
            return super().outputs(call, batch)

        def moved(features: Tensor, layer: nn.Linear) -> Tensor:
            return self.perturb_features(features, layer, batch)

        with self._reader.moving(self.net, moved, self.num_classes), self._reader.recording(self.net) as recorded:
            outputs = super().outputs(call, batch)
        self._reader.check(outputs["logits"], recorded)
        return {**outputs, "features": recorded.features, "weight": recorded.weight}

    def perturb_features(self, features: Tensor, layer: nn.Linear, batch: Batch) -> Tensor:
        """h + Δh.

        Args:
            features: What enters the classifier ``[B, A]``.
            layer: The classifier, as it is in this forward.
            batch: The batch.
        """
        found = list(self.cells("deep"))
        if not found:
            return features
        features = features if features.dtype == torch.float64 else features.float()
        plain = features.detach()
        for slot, cell in found:
            site = deep_site(self, slot, batch, plain, layer)
            if any(one.reads_losses for one in self.perturbations):
                site.plain_losses()
            features = cell(features, site)
        return features

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + Δu."""
        found = list(self.cells("logit"))
        if not found:
            return logits
        # in half precision, logits are too coarse for a small perturbation
        logits = logits if logits.dtype == torch.float64 else logits.float()
        moved = logits
        for slot, cell in found:
            moved = cell(moved, logit_site(self, slot, batch, {**outputs, "logits": logits}))
        self.tell(batch, "perturbation_norm", (moved - logits).detach().abs().sum(1))
        return moved

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """y + Δy."""
        target = batch.y
        for slot, cell in self.cells("label"):
            if target.ndim == 1:
                target = one_hot(target, self.num_classes)
            target = target.to(torch.promote_types(logits.dtype, torch.float32))
            target = cell(target, label_site(self, slot, batch, {"logits": logits}))
        return target

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + Δl."""
        for slot, cell in self.cells("loss"):
            loss = cell(loss, loss_site(self, slot, batch, {"logits": logits}))
        return loss

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """The cells' state."""
        for slot, cell in self.cells():
            cell.update(self, slot, outputs, batch)

    def start_epoch(self) -> None:
        """The cells' state."""
        for slot, cell in self.cells():
            cell.start_epoch(self, slot)


class MetaPerturb(MetaPerturbationModule, Perturb):
    """Any cells of the taxonomy, those among them that are learned on clean samples.

    A learned perturbation of the input acts after the others of the input. It needs the engine ``higher``, as one of
    deep features does; ``auto`` takes that by itself.

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
        for slot, cell in self._on_input(batch):
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


def _cells(listed: list[Cell] | None) -> tuple[Cell, ...]:
    """The cells, made again where a checkpoint had them as plain data.

    Raises:
        ValueError: If something else is listed.
    """
    found = from_plain(list(listed or []))
    for one in found:
        if not isinstance(one, Cell):
            raise ValueError(
                f"perturbations lists {one!r}, which is no cell. List objects of Prior, Hyperparameter, "
                "Regularization, Adversarial or Meta."
            )
    return tuple(found)


def _union(cells: tuple[Cell, ...]) -> Coordinates:
    """The words of all cells, in the taxonomy's order."""
    stated = [cell.coordinates for cell in cells]
    return Coordinates(
        **{name: tuple(word for word in words if any(word in getattr(one, name) for one in stated))
           for name, words in _WORDS.items()}
    )  # fmt: skip
