"""How far a method moves the loss of each class, against the loss with nothing perturbed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.callbacks.epoch_sums import EpochSumsReport
from lightning_perturb.callbacks.run import class_names
from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.figures import ClassVariation, loss_variation_by_class, loss_variation_over_epochs
from lightning_perturb.functional import class_loss_variation, loss_variation_sums

#: the parts of a step's samples: all of them, or those with a class and those without it
_PARTS: dict[int, tuple[str, ...]] = {1: ("",), 2: ("pos", "neg")}
_DEFAULTS = {"last_epochs": None, "average": "sample", "smallest": 1e-5}
_WORDS = {"": "", "pos": "positive samples", "neg": "negative samples"}


class LossVariationReport(EpochSumsReport):
    """Measures (l' - l) / l of each class, the relative loss variation [lpl Figs. 1, 2, 11; tax Fig. 2].

    l' is the loss that the method minimises, l the plain one (cross-entropy, or its binary form for several labels a
    sample) of the same sample, weights and dropout: of the logits of the training forward, or, for methods that perturb
    inputs, of those of another forward of the inputs as they came. That leaves no trace in the training. A sample
    belongs to its given label; a mixed one to its own, not to its partner's. Warm-up epochs, which perturb nothing, do
    not count. With several labels a sample, the positive and the negative samples of a class stand apart.

    Logs per epoch ``train/loss_variation`` over all samples and, where the most frequent class has twice the samples of
    the rarest, that of the more frequent half of the classes, ``train/loss_variation_head``, and of the others,
    ``train/loss_variation_tail``; with several labels ``train/loss_variation_pos``, ``..._pos_head`` and so on. At the
    end of training, as PNG and in TensorBoard: ``loss_variation_by_class.png``, the most frequent class first, and
    ``loss_variation_over_epochs.png``. The numbers behind them go into ``loss_variation.npz``: ``epochs`` ``[E]``,
    ``parts`` ``[P]`` (one without name, or ``pos`` and ``neg``), and ``samples``, ``plain`` and ``perturbed`` (mean
    losses) and ``variation``, ``[E, P, C]`` each; nothing under ``fast_dev_run``. A :class:`Recorder` in the same run
    records both losses of every sample, as ``compared/plain`` and ``compared/perturbed``, where there is one of each
    (DLB compares two batches in a step). A resumed run goes on with the sums of the run before. Of several reports in
    one run, those that measure otherwise than the first have ``average`` or ``smallest`` in the names that they log,
    ``train/loss_variation_class``; each needs a folder of its own.

    Attributes:
        paths: The figures that were written; empty before and where there are none.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.
        last_epochs: Epochs, the last ones, that the figure by class is made of; None takes all.
        average: ``sample``: the mean of the samples' quotients, as in the LPL paper's code. ``class``: the quotient of
            the class's summed losses, in which well learnt samples hardly count.
        smallest: Samples with a smaller l have no quotient, which would be one of rounding errors.
    """

    #: what methods must tell
    asks: ClassVar[tuple[str, ...]] = ("compared",)

    def __init__(
        self,
        folder: str | None = None,
        last_epochs: int | None = None,
        average: Literal["sample", "class"] = "sample",
        smallest: float = 1e-5,
    ) -> None:
        super().__init__(folder)
        if last_epochs is not None:
            check_positive("last_epochs", last_epochs)
        check_choice("average", average, ("sample", "class"))
        check_positive("smallest", smallest, zero=True)
        self.last_epochs = last_epochs
        self.average = average
        self.smallest = smallest

    def settings(self) -> dict[str, Any]:
        """What was given beside the folder."""
        given = {"last_epochs": self.last_epochs, "average": self.average, "smallest": self.smallest}
        return {name: value for name, value in given.items() if value != _DEFAULTS[name]}

    def by_class(self) -> dict[str, npt.NDArray[np.float64]]:
        """The variation of each class ``[C]`` over the drawn epochs, by part: under ``""``, or ``pos`` and ``neg``.

        Must be called on all ranks; empty where nothing was compared.
        """
        epochs, sums = self.table()
        if not epochs:
            return {}
        values = self._variation(self._late(sums))
        return {part: row.numpy() for part, row in zip(_PARTS[len(values)], values, strict=True)}

    def _late(self, sums: Tensor) -> Tensor:
        return sums[-(self.last_epochs or len(sums)) :].sum(0)

    def _variation(self, sums: Tensor) -> Tensor:
        return class_loss_variation(sums, self.average)

    # the life of a run --------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch's losses by class, on the device; nothing is synchronised."""
        if not isinstance(outputs, Mapping) or "compared/plain" not in outputs:
            return
        label, plain, perturbed = (outputs[f"compared/{name}"] for name in ("label", "plain", "perturbed"))
        classes = outputs["logits"].shape[1]
        self.add(trainer.current_epoch, loss_variation_sums(label, perturbed, plain, classes, self.smallest))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the variations of the epoch."""
        sums = self.summed(trainer.current_epoch)
        if sums is None:
            return
        name = f"train/loss_variation{self._own_name(trainer)}"
        for group, value in self._by_group(sums, pl_module).items():
            pl_module.log("_".join(filter(None, (name, group))), value, sync_dist=True)

    def _own_name(self, trainer: Trainer) -> str:
        """What a report is logged under that measures otherwise than one before it in the same run."""
        reports = [other for other in trainer.callbacks if isinstance(other, LossVariationReport)]  # type: ignore[attr-defined]
        first = reports[0]
        own = [str(self.average)] * (self.average != first.average)
        own += [f"{self.smallest:g}"] * (self.smallest != first.smallest)
        return "".join(f"_{word}" for word in own)

    def _by_group(self, sums: Tensor, method: Any) -> dict[str, float]:
        """The variation of all classes, of the head and of the tail, of each part; without those that have none."""
        counts = _counts(sums, method)
        groups = {"": torch.ones_like(counts, dtype=torch.bool)}
        if counts.max() >= 2 * counts.min():
            head = torch.zeros_like(groups[""])
            head[counts.argsort(descending=True, stable=True)[: len(counts) // 2]] = True
            groups |= {"head": head, "tail": ~head}
        found = {}
        for part, row in zip(_PARTS[len(sums)], sums, strict=True):
            for group, members in groups.items():
                value = float(self._variation(row[members].sum(0)))
                if not np.isnan(value):
                    found["_".join(filter(None, (part, group)))] = value
        return found

    def figures(self, trainer: Trainer, method: Any, epochs: list[int], sums: Tensor) -> dict[str, Figure]:
        """The variations by class and by epoch."""
        late, name = self._late(sums), type(method).__name__
        counts = _counts(late, method).numpy()
        drawn = [
            ClassVariation(
                row.numpy(), counts, ", ".join(filter(None, (name, _WORDS[part]))), class_names(trainer, len(counts))
            )
            for part, row in zip(_PARTS[len(late)], self._variation(late), strict=True)
            if not row.isnan().all()
        ]
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, row in zip(epochs, sums, strict=True):
            for group, value in self._by_group(row, method).items():
                x, y = curves.setdefault(group.replace("_", ", ") or "all", ([], []))
                x.append(epoch)
                y.append(value)
        if not drawn or not curves:
            return {}
        return {
            "loss_variation_by_class": loss_variation_by_class(*drawn),
            "loss_variation_over_epochs": loss_variation_over_epochs(curves),
        }

    def write(self, folder: Path, epochs: list[int], sums: Tensor) -> None:
        """The table."""
        samples, plain, perturbed, *_ = sums.unbind(-1)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / "loss_variation.npz",
            epochs=np.array(epochs),
            parts=np.array(_PARTS[sums.shape[1]]),
            samples=samples.numpy(),
            plain=(plain / samples).float().numpy(),
            perturbed=(perturbed / samples).float().numpy(),
            variation=self._variation(sums).float().numpy(),
        )


def _counts(sums: Tensor, method: Any) -> Tensor:
    """Samples of each class ``[C]``, for the order: of the training set, or those seen where that is not known."""
    known = getattr(method, "class_counts", None)
    if isinstance(known, Tensor) and len(known) == sums.shape[1] and bool(known.any()):
        return known.cpu()
    return sums[0, :, 0]
