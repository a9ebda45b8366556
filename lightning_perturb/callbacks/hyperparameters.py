"""What a method learned to do with clean and with noisy samples, drawn at the end of training [narl Figs. 7-10]."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from lightning_perturb.callbacks.figure_report import FigureReport
from lightning_perturb.callbacks.records import Records
from lightning_perturb.figures import (
    hyperparameter_distributions,
    hyperparameters_by_margin,
    loss_over_epochs,
    values_over_epochs,
)
from lightning_perturb.functional import polysoft_weight

_PREFIX = "hyperparameter/"
Table = npt.NDArray[np.floating[Any]]


class HyperparameterReport(FigureReport):
    """At the end of training, draws the hyperparameters or weights that each sample was trained with [narl Figs. 7-9].

    Needs a :class:`Recorder` in the same run, and a method that tells ``hyperparameter/<name>`` in what a step returns
    (NARLAdjuster, MetaWeightNet, MetaMixPert); with others nothing is drawn. Beside the told ones stand what the paper
    shows for two losses: the ratio of SL's coefficients, and the weight that PolySoft implicitly gives. Clean and
    wrongly labelled samples are drawn apart where that is known. Figures, as PNG and in TensorBoard:

    - ``hyperparameters_by_margin.png``: each against the margin, in the last epoch that has them.
    - ``hyperparameter_<name>.png``: how one is distributed over samples, in epochs from the first to the last.
    - ``hyperparameter_<name>_by_epoch.png``: its median and middle 80 % by epoch.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.
        fixed: Values by name (``{q: 0.7}``) of the loss with one value for all samples, drawn into the first figure.

    Raises:
        ValueError: At the start of training, if there is no Recorder.
    """

    def __init__(self, folder: str | None = None, fixed: dict[str, float] | None = None) -> None:
        super().__init__(folder)
        self.fixed = fixed

    def figures(self, records: Records, noisy: npt.NDArray[np.bool_] | None, method: Any) -> dict[str, Figure]:
        """The figures of all that was told."""
        tables = sample_hyperparameters(records)
        if not tables:
            return {}
        last = max(int(_told_epochs(values)[-1]) for values in tables.values())
        margins, row = np.asarray(records.margin[last]), {name: values[last] for name, values in tables.items()}
        row = {name: values for name, values in row.items() if not np.isnan(values).all()}
        drawn = {"hyperparameters_by_margin": hyperparameters_by_margin(margins, row, noisy, self.fixed)}
        for name, values in tables.items():
            file = f"hyperparameter_{name.replace('/', '_over_')}"
            drawn[file] = hyperparameter_distributions(name, values, noisy)
            drawn[f"{file}_by_epoch"] = values_over_epochs(name, values, noisy)
        return drawn


class LossReport(FigureReport):
    """At the end of training, draws the training loss by epoch, of clean and wrongly labelled samples [narl Fig. 10].

    It is the loss that the method minimises, where it tells that of each sample (``sample_loss``), otherwise plain
    cross-entropy. Needs a :class:`Recorder` in the same run. Written as ``training_loss.png`` and into TensorBoard.

    Args:
        folder: Where the figure goes; None takes the folder of the run's logs.

    Raises:
        ValueError: At the start of training, if there is no Recorder.
    """

    def figures(self, records: Records, noisy: npt.NDArray[np.bool_] | None, method: Any) -> dict[str, Figure]:
        """The curves."""
        told = records.told.get("sample_loss")
        name = type(method).__name__ if told is not None else f"{type(method).__name__}, plain cross-entropy"
        losses = records.loss if told is None else told
        return {} if np.isnan(losses).all() else {"training_loss": loss_over_epochs(losses, noisy, name)}


def sample_hyperparameters(records: Records) -> dict[str, Table]:
    """What a method told as ``hyperparameter/<name>``, by name, and what follows from it, ``[E, N]`` each.

    Args:
        records: What a recorder wrote.
    """
    told: dict[str, Table] = {
        name.removeprefix(_PREFIX): values for name, values in records.told.items() if name.startswith(_PREFIX)
    }
    found = dict(told)
    if {"gamma1", "gamma2"} <= told.keys():
        found["gamma1/gamma2"] = _by_epoch(_ratio, told["gamma1"], told["gamma2"])
    if {"lam", "d"} <= told.keys():
        found["weight"] = _by_epoch(polysoft_weight, records.loss, told["lam"], told["d"])
    return {name: values for name, values in found.items() if len(_told_epochs(values))}


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    # a coefficient of 0 is an end of its range
    return above / below.clamp(min=1e-6)


def _by_epoch(function: Any, *tables: Table) -> Table:
    """A function of tables, row by row, so that they stay memory maps; [E, N] in half precision as they are."""
    found = np.full(tables[0].shape, np.nan, dtype=np.float16)
    for epoch, rows in enumerate(zip(*tables, strict=True)):
        values = function(*(torch.from_numpy(np.array(row, dtype=np.float32)) for row in rows))
        found[epoch] = np.clip(values.numpy(), np.finfo(np.float16).min, np.finfo(np.float16).max)
    return found


def _told_epochs(values: Table) -> npt.NDArray[np.int64]:
    return np.flatnonzero([not np.isnan(row).all() for row in values])
