"""The base of callbacks that add up numbers of the batches by epoch and draw them at the end of training."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.callbacks.run import run_folder
from lightning_perturb.core.distributed import gather_rows, rank
from lightning_perturb.figures import save


class EpochSumsReport(Callback):
    """Keeps one tensor of sums for each epoch, of this rank until it is read, and draws figures of them.

    A subclass calls :meth:`add` with each batch and draws in :meth:`figures`. A resumed run goes on with the sums of
    the run before. Nothing is written under ``fast_dev_run``.

    Attributes:
        paths: The files that were written; empty before and where there is nothing to draw.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self._sums: dict[int, Tensor] = {}
        self._restored = False

    def add(self, epoch: int, sums: Tensor) -> None:
        """Adds a batch's sums, on its device; nothing is synchronised.

        Args:
            epoch: Number of the epoch.
            sums: A tensor of the same shape and type with every batch.
        """
        known = self._sums.get(epoch)
        self._sums[epoch] = sums if known is None else known.to(sums.device) + sums

    def summed(self, epoch: int) -> Tensor | None:
        """The sums of an epoch over all ranks, on the CPU; None where there are none. Must be called on all ranks."""
        return _over_ranks(self._sums[epoch]) if epoch in self._sums else None

    def table(self) -> tuple[list[int], Tensor]:
        """The epochs, and their sums over all ranks ``[E, ...]``, on the CPU; must be called on all ranks."""
        epochs = sorted(self._sums)
        if not epochs:
            return epochs, torch.zeros(0)
        device = self._sums[epochs[-1]].device
        return epochs, _over_ranks(torch.stack([self._sums[epoch].to(device) for epoch in epochs]))

    def figures(self, trainer: Trainer, method: Any, epochs: list[int], sums: Tensor) -> dict[str, Figure]:
        """The figures by the name of their file; called where there is at least one epoch, on rank 0 alone.

        Args:
            trainer: The trainer.
            method: The module that was trained.
            epochs: Numbers of the epochs.
            sums: Their sums ``[E, ...]``.
        """
        raise NotImplementedError

    def write(self, folder: Path, epochs: list[int], sums: Tensor) -> None:
        """Writes what else there is to write, beside the figures and under the same conditions; nothing here."""

    def settings(self) -> dict[str, Any]:
        """What was given beside the folder; by that, reports of a kind in one run are told apart."""
        return {}

    @property
    def state_key(self) -> str:
        """Under what name the sums stand in a checkpoint."""
        settings = self.settings()
        return self._generate_state_key(**settings) if settings else super().state_key

    # the life of a run --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets what a checkpoint left for another stage; looks for another report that writes the same files."""
        self._restored = False
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is not self and type(other) is type(self) and other.folder == self.folder:
                raise ValueError(
                    f"Two callbacks {type(self).__name__} write into folder={self.folder!r}, the one over the other's "
                    "files. Give one of them another folder."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew, unless the run is resumed."""
        if not self._restored and trainer.current_epoch == 0:
            self._sums = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures."""
        self.paths = []
        folder = run_folder(trainer) if self.folder is None else Path(self.folder)
        if not self._sums or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        epochs, sums = self.table()
        if not trainer.is_global_zero:
            return
        self.write(folder, epochs, sums)
        for name, figure in self.figures(trainer, pl_module, epochs, sums).items():
            self.paths.append(save(figure, folder / f"{name}.png", trainer.loggers, name, trainer.global_step))

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The sums of all ranks."""
        epochs, sums = self.table()
        return {"epochs": epochs, "sums": sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them from a checkpoint; rank 0 holds those of all ranks from here on."""
        self._restored = True
        share = 1 if rank() == 0 else 0
        self._sums = {epoch: share * row for epoch, row in zip(state_dict["epochs"], state_dict["sums"], strict=True)}


def _over_ranks(sums: Tensor) -> Tensor:
    (ranks,) = gather_rows(sums[None])
    return ranks.sum(0).cpu()
