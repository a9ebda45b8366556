"""Short trainings on embedded data, of which figures are made."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import nn

from lightning_perturb.callbacks import LossVariationReport
from lightning_perturb.core import PerturbationModule
from lightning_perturb.data import Digits, Exponential, MultiLabelDigits, PerturbationDataModule
from lightning_perturb.figures.loss_variation import ClassVariation, loss_variation_by_class
from lightning_perturb.nets import MLP

Make = Callable[..., PerturbationModule]

_PARTS = {"": "", "pos": ", pos", "neg": ", neg"}


@contextmanager
def quiet() -> Iterator[None]:
    """Random numbers as before, and no word of a trainer that the user did not start."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("lightning")]
    levels = [logger.level for logger in loggers]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def train(
    method: LightningModule, data: PerturbationDataModule, epochs: int, callbacks: Sequence[Callback] = ()
) -> None:
    """Fits on the CPU and leaves no file."""
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(method, datamodule=data)


def classifier(make: Make, data: PerturbationDataModule, lr: float = 0.05) -> PerturbationModule:
    """A method with a small network, the same weights each time.

    Args:
        make: The method.
        data: The data that it is for.
        lr: Rate.
    """
    torch.manual_seed(0)
    net: nn.Module = MLP(data.num_classes, 400 if data.multi_label else 64, hidden=(256,))
    return make(net=net, num_classes=data.num_classes, optimizer=partial(torch.optim.SGD, lr=lr, momentum=0.9), seed=0)


class _Watch(LossVariationReport):
    """Measures and draws nothing by itself."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing."""


def balanced() -> PerturbationDataModule:
    """All digits."""
    return Digits(seed=0)


def long_tail() -> PerturbationDataModule:
    """Digits of which the first is 50 times as frequent as the last."""
    return Digits(seed=0, imbalance=Exponential(ratio=50.0))


def several() -> PerturbationDataModule:
    """Canvases with several digits, long-tailed."""
    return MultiLabelDigits(seed=0, ratio=100.0, val_samples=0)


def variations(
    title: str, make: Make, data: Callable[[], PerturbationDataModule], epochs: int, lr: float = 0.05
) -> list[ClassVariation]:
    """The relative loss variation of each class over a training of a small network: of all samples, or pos and neg.

    Args:
        title: What stands above the plot, before the part.
        make: The method.
        data: Gives the data.
        epochs: Epochs of the training.
        lr: Rate.
    """
    module, watch = data(), _Watch()
    method = classifier(make, module, lr)
    train(method, module, epochs, [watch])
    counts = method.class_counts.numpy()
    if counts.max() < 2 * counts.min():
        # as good as balanced: by their ids
        counts = np.ones_like(counts)
    return [
        ClassVariation(values, counts, title + _PARTS[part], module.class_names)
        for part, values in watch.by_class().items()
    ]


def variation_figure(*found: list[ClassVariation]) -> Figure:
    """All of them in one figure."""
    return loss_variation_by_class(*(one for several in found for one in several))
