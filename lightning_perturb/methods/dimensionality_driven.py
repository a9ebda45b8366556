"""D2L: labels give way to predictions once features begin to fill more dimensions, which memorising noise does."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, Needs
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.distributed import gather_rows, rank, world_size
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.core.kept_weights import KeptWeightsModule
from lightning_perturb.core.scores import training_size, visit_training
from lightning_perturb.functional import hard_bootstrapping_target, local_dimensionality, paced_trust, turns


class D2L(KeptWeightsModule, FeatureModule):
    """Dimensionality-driven learning (Ma et al., 2018), D2L in [tax Table 1] and [iada Table 5].

    Before every epoch the local intrinsic dimensionality of the features is estimated, as its mean over batches that
    are drawn from the training set, not augmented, by the network in evaluation mode. It falls while the network learns
    and grows when it begins to memorise. Up to there the loss is cross-entropy. Then the network goes back to what it
    was one epoch earlier, and labels become alpha y + (1 - alpha) e_argmax with alpha = exp(-t / T LID / min LID) in
    epoch t of T; as in the published code the minimum counts the present epoch.

    Args:
        neighbours: Neighbours k of the estimate.
        batches: Batches that are drawn for it.
        drawn_size: Samples in one of them; where the training set has less, all of it is one.
        init_epochs: Epochs in which no turn is looked for, beside those of the window.
        window: Epochs whose dimensionalities the present one is compared with: a turn is two deviations above the mean.
        roll_back: Go back one epoch at the turn.
        total_epochs: T; None takes the Trainer's max_epochs.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.

    Raises:
        ValueError: If an argument is out of range. In training: if T is not known.
    """

    coordinates = Coordinates.of("label", "positive", "prior", "sample")
    needs = Needs(scores=True)
    paper = "iada"

    dimensions: Tensor
    lowest: Tensor
    epochs_seen: Tensor
    turned: Tensor
    alpha: Tensor

    def __init__(
        self,
        *args: Any,
        neighbours: int = 20,
        batches: int = 10,
        drawn_size: int = 128,
        init_epochs: int = 5,
        window: int = 5,
        roll_back: bool = True,
        total_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if neighbours < 2 or drawn_size <= neighbours:
            raise ValueError(
                f"neighbours={neighbours} cannot be found among drawn_size={drawn_size} samples. Give at least 2, and "
                "more samples than neighbours."
            )
        check_positive("batches", batches)
        check_positive("init_epochs", init_epochs, zero=True)
        check_positive("window", window)
        if total_epochs is not None:
            check_positive("total_epochs", total_epochs)
        self.neighbours = neighbours
        self.batches = batches
        self.drawn_size = drawn_size
        self.init_epochs = init_epochs
        self.window = window
        self.roll_back = roll_back
        self.total_epochs = total_epochs
        self.add_state("dimensions", torch.zeros(window, dtype=torch.float64))
        self.add_state("lowest", torch.tensor(math.inf, dtype=torch.float64))
        self.add_state("epochs_seen", torch.zeros((), dtype=torch.int64))
        self.add_state("turned", torch.tensor(False))
        self.add_state("alpha", torch.ones((), dtype=torch.float64))
        # as a number: a look into a buffer makes the host wait for the device
        self._trust: float | None = None

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """alpha y + (1 - alpha) e_argmax from the turn on."""
        if self._trust is None:
            self._trust = float(self.alpha)
        return batch.y if self._trust == 1 else hard_bootstrapping_target(logits, batch.y, self._trust)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base; alpha is read anew from its buffer."""
        super().on_load_checkpoint(checkpoint)
        self._trust = None

    # between epochs -----------------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """Estimates the dimensionality; looks for the turn, or lowers the trust after it."""
        super().start_epoch()
        if self.phase == "warmup":
            return
        latest = self._usable(self.dimensionality())
        self.lowest.fill_(min(float(self.lowest), latest))
        known = int(self.epochs_seen) >= self.init_epochs + self.window
        if known and not bool(self.turned) and turns(self.dimensions, latest):
            self.turned.fill_(True)
            if self.roll_back:
                self.restore_weights()
        if bool(self.turned):
            self.alpha.fill_(paced_trust(self._progress(), latest, float(self.lowest)))
            self.drop_weights()
        elif self.roll_back:
            self.keep_weights()
        self._trust = float(self.alpha)
        self.epochs_seen += 1
        self.dimensions.copy_(torch.cat([self.dimensions[1:], self.dimensions.new_tensor([latest])]))

    def dimensionality(self) -> float:
        """The mean local intrinsic dimensionality of the features of samples that are drawn, alike on all ranks."""
        wanted = self.batches * self.drawn_size
        draws = [torch.empty(0, device=self.device)]
        positions = [torch.empty(0, device=self.device, dtype=torch.int64)]
        features = [torch.empty(0, self.num_features, device=self.device, dtype=torch.float64)]
        limit = self._limit(wanted)
        seen = 0

        def visit(batch: Batch) -> None:
            nonlocal seen
            place = torch.arange(seen, seen + len(batch), device=self.device) * world_size() + rank()
            seen += len(batch)
            keys = place if batch.index is None else batch.index
            own = keyed_random.uniform(self._draw_seed, "dimensionality", self.current_epoch, keys)
            drawn = own < limit
            if bool(drawn.any()):
                draws.append(own[drawn])
                positions.append(keys[drawn])
                features.append(self.outputs(self.net, batch.rows(drawn))["features"].double())

        visit_training(self, visit)
        draw, position, values = gather_rows(torch.cat(draws), torch.cat(positions), torch.cat(features))
        # by position first: equal draws must not fall back on the order of the ranks
        order = position.argsort(stable=True)
        values = values[order[draw[order].argsort(stable=True)[:wanted]]]
        size = min(self.drawn_size, len(values))
        parts = [values[start : start + size] for start in range(0, len(values) - size + 1, max(size, 1))]
        found = torch.cat([local_dimensionality(part, self.neighbours) for part in parts or [values]])
        return float(found[found.isfinite()].mean())

    def _limit(self, wanted: int) -> float:
        """The draw below which samples are looked at: a few more than are wanted, where it is known how many come."""
        samples = training_size(self)
        # ten deviations of the number of draws below it
        return min((wanted + 10 * math.sqrt(wanted)) / samples, 1.0) if samples else 1.0

    def _usable(self, latest: float) -> float:
        """The estimate, or the last one where features tell none."""
        if math.isfinite(latest) and latest > 0:
            return latest
        last = float(self.dimensions[-1])
        return last if last > 0 else 1.0

    def _progress(self) -> float:
        total = self.total_epochs or self.trainer.max_epochs
        if total is None or total < 1:
            raise ValueError(
                f"total_epochs=None takes the Trainer's max_epochs, which is {total}. Set max_epochs or total_epochs."
            )
        return self.current_epoch / total
