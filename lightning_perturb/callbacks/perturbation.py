"""How large the perturbations were, drawn at the end of training."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lightning_perturb.callbacks.dynamics import mean_over_epochs
from lightning_perturb.callbacks.figure_report import FigureReport
from lightning_perturb.callbacks.records import Records
from lightning_perturb.figures import perturbation_distribution


class PerturbationReport(FigureReport):
    """At the end of training, draws the distribution of the perturbation's norm [tax Fig. 7].

    Needs a :class:`Recorder` in the same run, and a method that tells the norm (such as LogPert); with others nothing
    is drawn. Each sample counts with its mean over the epochs; clean and wrongly labelled samples are drawn apart where
    that is known. Written as PNG and into TensorBoard.

    Args:
        path: Where the figure goes; None takes ``perturbation_norm.png`` in the folder of the run's logs.

    Raises:
        ValueError: At the start of training, if there is no Recorder.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self._asked_path = path

    @property
    def path(self) -> Path | None:
        """The figure that was written; None before and where there is none."""
        return self.paths[0] if self.paths else None

    def place(self, folder: Path, name: str) -> Path:
        """The path that was asked for."""
        return super().place(folder, name) if self._asked_path is None else Path(self._asked_path)

    def figures(self, records: Records, noisy: npt.NDArray[np.bool_] | None, method: Any) -> dict[str, Figure]:
        """The distribution."""
        if records.perturbation_norm is None:
            return {}
        norms = mean_over_epochs(records.perturbation_norm)
        return {} if np.isnan(norms).all() else {"perturbation_norm": perturbation_distribution(norms, noisy)}
