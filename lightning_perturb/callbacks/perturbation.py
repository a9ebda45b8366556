"""How large the perturbations were, drawn at the end of training."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_perturb.callbacks.dynamics import mean_over_epochs
from lightning_perturb.callbacks.recorder import Recorder
from lightning_perturb.callbacks.run import run_folder, true_labels
from lightning_perturb.figures import perturbation_distribution, save


class PerturbationReport(Callback):
    """At the end of training, draws the distribution of the perturbation's norm [tax Fig. 7].

    Needs a :class:`Recorder` in the same run, and a method that tells the norm (such as LogPert); with others nothing
    is drawn. Each sample counts with its mean over the epochs; clean and wrongly labelled samples are drawn apart where
    that is known. Written as PNG and into TensorBoard.

    Attributes:
        path: The figure that was written; None before and where there is none.

    Args:
        path: Where the figure goes; None takes ``perturbation_norm.png`` in the folder of the run's logs.

    Raises:
        ValueError: At the start of training, if there is no Recorder.
    """

    def __init__(self, path: str | None = None) -> None:
        self._asked_path = path
        self.path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for the recorder before training, not after it."""
        if stage == "fit":
            Recorder.of(trainer, type(self).__name__)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figure."""
        self.path = None
        folder = run_folder(trainer)
        records = Recorder.of(trainer, type(self).__name__).records
        if records is None or records.perturbation_norm is None or not trainer.is_global_zero:
            return
        norms = mean_over_epochs(records.perturbation_norm)
        if np.isnan(norms).all():
            return
        true = true_labels(trainer, len(norms))
        noisy = None if true is None else records.given != true
        path = Path(self._asked_path) if self._asked_path is not None else folder / "perturbation_norm.png"
        self.path = save(
            perturbation_distribution(norms, noisy), path, trainer.loggers, "perturbation_norm", trainer.global_step
        )
