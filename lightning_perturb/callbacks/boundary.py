"""Where the classifier of data in the plane decides, drawn at the end of training."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_perturb.callbacks.run import class_names, run_folder
from lightning_perturb.core.modes import evaluating
from lightning_perturb.figures import Classifier, decision_boundaries, save


class BoundaryReport(Callback):
    """At the end of training, draws the training samples and the boundaries between the classes [tax Fig. 3].

    For data with two features, such as :class:`~lightning_perturb.data.TwoGaussians`; samples have the colours of their
    given labels. Written as PNG and into TensorBoard.

    Attributes:
        path: The figure that was written; None before.

    Args:
        path: Where the figure goes; None takes ``decision_boundary.png`` in the folder of the run's logs.

    Raises:
        ValueError: At the start of training, if the data have not two features.
    """

    def __init__(self, path: str | None = None) -> None:
        self._asked_path = path
        self.path: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the data before training, not after it."""
        if stage == "fit":
            _samples(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figure."""
        self.path = None
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        x, y = _samples(trainer)
        with evaluating(pl_module):
            figure = decision_boundaries(
                [Classifier(type(pl_module).__name__, x, y, lambda points: pl_module(points.to(pl_module.device)))],
                class_names(trainer, int(y.max()) + 1),
            )
        path = Path(self._asked_path) if self._asked_path is not None else folder / "decision_boundary.png"
        self.path = save(figure, path, trainer.loggers, "decision_boundary", trainer.global_step)


def _samples(trainer: Trainer) -> tuple[Any, Any]:
    """Training samples and their given labels."""
    data: Any = getattr(trainer, "datamodule", None)
    x = data.raw_inputs(data.train_index) if hasattr(data, "raw_inputs") else None
    if not isinstance(x, Tensor) or x.shape[1:] != (2,) or data.multi_label:
        found = f"of shape {tuple(x.shape[1:])}" if isinstance(x, Tensor) else "that it cannot read"
        raise ValueError(
            f"BoundaryReport draws samples of two features and one label, but {type(data).__name__} has samples {found}"
            f"{' and several labels' if getattr(data, 'multi_label', False) else ''}. Take TwoGaussians, or leave the "
            "callback away."
        )
    return x.numpy(), np.asarray(data.given_labels)[data.train_index]
