"""How many samples a method perturbs adversarially, of each class, and of clean and noisy samples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_perturb.callbacks.run import class_names, run_folder, true_labels
from lightning_perturb.checks import check_positive
from lightning_perturb.core.distributed import gather_rows, rank
from lightning_perturb.figures import adversarial_by_class, adversarial_over_epochs, save

_GROUPS = ("clean", "noisy")


class AdversarialReport(Callback):
    """Counts the samples whose ε is above 0, and draws them at the end of training [iada Figs. 3, 4].

    For methods that tell ``epsilon`` in what a step returns (:class:`~lightning_perturb.methods.IADA`,
    :class:`~lightning_perturb.methods.MetaIADA`); with others nothing is drawn. Logs per epoch ``train/adversarial``
    and, where it is known which given labels are wrong, ``train/adversarial_clean`` and ``train/adversarial_noisy``.
    Figures, as PNG and in TensorBoard: ``adversarial_by_class.png`` over the last epochs, the most frequent class
    first, and ``adversarial_over_epochs.png``. A resumed run goes on with the counts of the run before.

    Attributes:
        paths: The figures that were written; empty before and where there are none.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.
        last_epochs: Epochs, the last ones, that the figure by class is made of; the paper shows the last 40.
    """

    def __init__(self, folder: str | None = None, last_epochs: int = 40) -> None:
        check_positive("last_epochs", last_epochs)
        self.folder = folder
        self.last_epochs = last_epochs
        self.paths: list[Path] = []
        # by epoch: [clean or noisy, class, all or adversarial], of this rank
        self._counts: dict[int, Tensor] = {}
        self._true: Tensor | None = None
        self._restored = False

    # the life of a run --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets what a checkpoint left for another stage."""
        self._restored = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks which given labels are wrong."""
        if not self._restored and trainer.current_epoch == 0:
            self._counts = {}
        true = true_labels(trainer)
        self._true = None if true is None else torch.as_tensor(true, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch on the device; nothing is synchronised."""
        if not isinstance(outputs, Mapping) or outputs.get("epsilon") is None:
            return
        y, index, epsilon = outputs["y"], outputs["index"], outputs["epsilon"]
        noisy = torch.zeros_like(y)
        if self._true is not None and index is not None:
            noisy = (self._true[index] != y).long()
        classes = outputs["logits"].shape[1]
        counts = self._counts.get(trainer.current_epoch)
        counts = torch.zeros(2, classes, 2, dtype=torch.int64) if counts is None else counts
        counts = counts.to(y.device)
        found = torch.stack([torch.ones_like(y), (epsilon > 0).long()], 1)
        counts.view(-1, 2).index_add_(0, noisy * classes + y, found)
        self._counts[trainer.current_epoch] = counts

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the shares of the epoch."""
        if trainer.current_epoch not in self._counts:
            return
        counts = _summed(self._counts[trainer.current_epoch])
        for name, (total, adversarial) in self._groups(counts).items():
            if total:
                pl_module.log(f"train/adversarial{name and '_' + name}", adversarial / total, sync_dist=True)

    def _groups(self, counts: Tensor) -> dict[str, list[int]]:
        """Samples and adversarial samples: of all, and of clean and noisy ones where that is known."""
        groups = {"": counts.sum((0, 1)).tolist()}
        if self._true is not None:
            groups.update(zip(_GROUPS, counts.sum(1).tolist(), strict=True))
        return groups

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures."""
        self.paths = []
        folder = Path(self.folder) if self.folder is not None else run_folder(trainer)
        if not self._counts:
            return
        epochs, counts = self._table()
        if not trainer.is_global_zero:
            return
        late = counts[-self.last_epochs :].sum((0, 1))
        # 0 / 0 is NaN: a class without samples is left out
        shares, sizes = (late[:, 1] / late[:, 0]).numpy(), late[:, 0].numpy()
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, row in zip(epochs, counts, strict=True):
            for name, (total, adversarial) in self._groups(row).items():
                if total:
                    x, y = curves.setdefault(name or "all", ([], []))
                    x.append(epoch)
                    y.append(adversarial / total)
        shown = _GROUPS if "noisy" in curves else ("all",)
        figures = {
            "adversarial_by_class": adversarial_by_class(shares, sizes, class_names(trainer, len(sizes))),
            "adversarial_over_epochs": adversarial_over_epochs(
                {name: curves[name] for name in shown if name in curves}
            ),
        }
        for name, figure in figures.items():
            self.paths.append(save(figure, folder / f"{name}.png", trainer.loggers, name, trainer.global_step))

    def _table(self) -> tuple[list[int], Tensor]:
        """The epochs, and the counts of all ranks ``[E, 2, C, 2]``; must be called on all ranks."""
        epochs = sorted(self._counts)
        if not epochs:
            return epochs, torch.zeros(0, 2, 0, 2, dtype=torch.int64)
        device = self._counts[epochs[-1]].device
        return epochs, _summed(torch.stack([self._counts[epoch].to(device) for epoch in epochs]))

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The counts of all ranks."""
        epochs, counts = self._table()
        return {"epochs": epochs, "counts": counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them from a checkpoint; rank 0 holds those of all ranks from here on."""
        self._restored = True
        share = 1 if rank() == 0 else 0
        self._counts = {
            epoch: share * row for epoch, row in zip(state_dict["epochs"], state_dict["counts"], strict=True)
        }


def _summed(counts: Tensor) -> Tensor:
    """The sum over ranks, on the CPU."""
    (ranks,) = gather_rows(counts[None])
    return ranks.sum(0).cpu()
