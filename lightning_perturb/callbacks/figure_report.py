"""The base of callbacks that draw what a recorder wrote, at the end of training."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from lightning_perturb.callbacks.recorder import Recorder
from lightning_perturb.callbacks.records import Records
from lightning_perturb.callbacks.run import run_folder, true_labels
from lightning_perturb.figures import save


class FigureReport(Callback):
    """Draws figures from the records of a run, as PNG and into TensorBoard. Needs a :class:`Recorder` in the same run.

    Attributes:
        paths: The figures that were written; empty before and where there is nothing to draw.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.

    Raises:
        ValueError: At the start of training, if there is no Recorder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.paths: list[Path] = []

    def figures(self, records: Records, noisy: npt.NDArray[np.bool_] | None, method: Any) -> dict[str, Figure]:
        """The figures by the name of their file; empty where there is nothing to draw.

        Args:
            records: What the recorder wrote, at least one epoch.
            noisy: Which samples carry a wrong label ``[N]``; None where that is unknown.
            method: The module that was trained.
        """
        raise NotImplementedError

    def place(self, folder: Path, name: str) -> Path:
        """Where a figure goes.

        Args:
            folder: The folder of the run's logs.
            name: Name of the figure.
        """
        return (folder if self.folder is None else Path(self.folder)) / f"{name}.png"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for the recorder before training, not after it."""
        if stage == "fit":
            Recorder.of(trainer, type(self).__name__)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures."""
        self.paths = []
        folder = run_folder(trainer)
        records = Recorder.of(trainer, type(self).__name__).records
        if records is None or not trainer.is_global_zero:
            return
        true = true_labels(trainer, len(records.given))
        noisy = None if true is None else (records.given != true) & (records.given >= 0)
        for name, figure in self.figures(records, noisy, pl_module).items():
            self.paths.append(save(figure, self.place(folder, name), trainer.loggers, name, trainer.global_step))
