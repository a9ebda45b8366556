"""Methods without a data module: samples in every form that a user's own loader may serve, and a module to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from testkit.cases import NEEDED
from testkit.training import CLASSES, NETS, digits, multi_hot, sgd, trainer_of
from torch import Tensor, nn
from torch.utils.data import Dataset

import lightning_perturb
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.counts import OptionalCountsModule
from lightning_perturb.core.domains import DomainModule, GroupModule


def build(
    method: type[PerturbationModule],
    options: dict[str, Any] | None = None,
    net: nn.Module | None = None,
    classes: int = CLASSES,
) -> PerturbationModule:
    """A module for loaders of one's own."""
    seed_everything(0, verbose=False)
    # a user's own loader does not tell them
    if issubclass(method, OptionalCountsModule):
        options = {"class_counts": [10] * classes, **(options or {})}
    if issubclass(method, DomainModule):
        options = {"num_domains": 2, **(options or {})}
    if issubclass(method, GroupModule):
        options = {"group_counts": [[3, 2]] * classes, **(options or {})}
    if issubclass(method, lightning_perturb.methods.NTR):
        options = {"train_samples": 48, **(options or {})}
    options = {**NEEDED.get(method.__name__, {}), **(options or {})}
    # a user's own loader gives pixels that are not normalised
    module = method(net or NETS["mlp"](), classes, optimizer=sgd, **options)
    # and its batches are what they are, which test_resampling.py finds named
    module.needs = replace(module.needs, balanced_from=None)
    return module


def pixels(count: int = 48, method: type[PerturbationModule] | None = None) -> tuple[Tensor, Tensor]:
    """Digits as floats, with the kind of labels that a method takes."""
    x, y = digits()
    several = method is not None and method.multi_label
    return x[:count].float() / 255, multi_hot(y[:count]) if several else y[:count]


class Served(Dataset[Any]):
    """Samples in the form that the method needs; mappings with views where asked."""

    def __init__(self, form: str, method: type[PerturbationModule], y: Tensor | None = None) -> None:
        self.x, self.y = pixels(method=method)
        self.y = self.y if y is None else y
        self.form, self.views = form, method.needs.views

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        x = self.x[i] if self.views == 1 else (self.x[i], self.x[i].flip(-1))
        if self.form == "pair":
            return x, self.y[i]
        if self.form == "triple":
            return x, self.y[i], i
        return {
            "image": x,
            "label": self.y[i],
            "index": i,
            "weight": torch.tensor(1.0),
            "noisy": torch.tensor(i % 3 == 0),
            "domain": i % 2,
        }


def form_for(method: type[PerturbationModule]) -> str:
    """The shortest form of samples with an index that has all that is needed."""
    return "mapping" if method.needs.truth or method.needs.domains else "triple"


def train(module: PerturbationModule, loader: Any, **options: Any) -> Trainer:
    """Two epochs on a loader, which is the stream of clean samples too where the method learns from one."""
    streams = CombinedLoader({"train": loader, "meta": loader}, "min_size") if module.needs.meta else loader
    trainer = trainer_of(**{"max_epochs": 2, **options})
    trainer.fit(module, streams)
    return trainer


def first_step(module: PerturbationModule, loader: Any) -> Any:
    """The step on a loader's first batch without a trainer, for batches that are refused before anything is done."""
    batch = next(iter(loader))
    return module.training_step({"train": batch, "meta": batch} if module.needs.meta else batch, 0)
