"""How the accuracy of each group, a class in a domain, comes about."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.callbacks.epoch_sums import EpochSumsReport
from lightning_perturb.core.evaluated import EvaluatedModule
from lightning_perturb.core.group_accuracy import group_names
from lightning_perturb.figures import accuracy_curves


class GroupReport(EpochSumsReport):
    """Draws the validation accuracy of every group by epoch, for data with domains; otherwise nothing.

    As PNG and in TensorBoard, ``group_accuracy.png``, and as a table ``group_accuracy.csv`` with a row for each epoch
    and group. A resumed run goes on with the counts of the run before.

    Attributes:
        paths: The figures that were written; empty before and where there are none.

    Args:
        folder: Where they go; None takes the folder of the run's logs.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(folder)
        self._names: list[list[str]] = []

    # the sums of an epoch are counts [right or all, class, domain]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the counts of this rank, before the module starts them anew."""
        # every rank asks, whatever batches it saw
        if trainer.sanity_checking or not isinstance(pl_module, EvaluatedModule) or not pl_module.val_groups.agree():
            return
        groups = pl_module.val_groups
        self._names = group_names(groups.samples.shape, *pl_module.names_of_groups())
        self.add(trainer.current_epoch, torch.stack([groups.right, groups.samples]))

    def figures(self, trainer: Trainer, method: Any, epochs: list[int], sums: Tensor) -> dict[str, Figure]:
        """Accuracy by epoch, a line for each group that has samples."""
        right, samples = sums.unbind(1)
        lines = [
            (name, epochs, (right[:, c, d] / samples[:, c, d]).numpy())
            for c, row in enumerate(self._names)
            for d, name in enumerate(row)
            if (samples[:, c, d] > 0).all()
        ]
        return {"group_accuracy": accuracy_curves(lines, "validation accuracy")} if lines else {}

    def write(self, folder: Path, epochs: list[int], sums: Tensor) -> None:
        """The table."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["epoch,group,samples,accuracy"]
        for epoch, (right, samples) in zip(epochs, sums.tolist(), strict=True):
            for c, row in enumerate(self._names):
                for d, name in enumerate(row):
                    if samples[c][d]:
                        lines.append(f'{epoch},"{name}",{samples[c][d]},{right[c][d] / samples[c][d]:.6g}')
        (folder / "group_accuracy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
