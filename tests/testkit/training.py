"""Tiny real trainings: a recipe in, a whole fit, everything that a resume must restore out."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from testkit.cases import NEEDED
from torch import Tensor, nn

from lightning_perturb.core import PerturbationModule
from lightning_perturb.data import Arrays, CropFlip, MultiLabelSymmetric, Symmetric
from lightning_perturb.nets import MLP

CLASSES = 10
EPOCHS = 3

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class TinyConv(nn.Module):
    """Two convolutions, without or with batch norm and dropout."""

    def __init__(self, num_classes: int = CLASSES, norm: bool = False, dropout: float = 0.0, channels: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(CLASSES, 64, (16,)),
    "dropout": lambda: MLP(CLASSES, 64, (16,), dropout=0.3),
    "conv": TinyConv,
    "conv-norm-dropout": lambda: TinyConv(norm=True, dropout=0.3),
}


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.2, momentum=0.9)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.01)


def decaying(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)


@functools.lru_cache
def digits() -> tuple[Tensor, Tensor]:
    """All digits, uint8 ``[1797, 1, 8, 8]``, and labels; parsed once a process."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(np.round(images * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8), torch.from_numpy(
        labels
    )


def meta_of(module: PerturbationModule | type[PerturbationModule]) -> dict[str, Any]:
    """The data options of a method that learns from clean samples, several labels or domains; none for others."""
    options: dict[str, Any] = {"meta_size": 20} if module.needs.meta else {}
    options |= {"multi_label": True} if module.multi_label else {}
    return options | ({"domains": 2} if module.needs.domains else {})


def multi_hot(y: Tensor) -> Tensor:
    """Several labels that are as easy as the digits: one 1 at y, and another at y + 3 where y is even ``[N, 10]``."""
    rows = torch.zeros(len(y), CLASSES)
    rows[torch.arange(len(y)), y] = 1
    rows[torch.arange(len(y)), (y + 3) % CLASSES] += (y % 2 == 0).float()
    return rows


def tiny_data(
    samples: int = 96, test_samples: int = 50, noise: float = 0.4, augment: bool = False, multi_label: bool = False,
    domains: int = 0, **options: Any,
) -> Arrays:  # fmt: skip
    """Real digits with flipped labels in the package's own data module; a meta set comes on top of the samples.

    Of several domains the first has three in four samples of an even class and one in four of the others.
    """
    x, y = digits()
    if domains:
        place = (torch.arange(len(y)) * 40503 >> 5) % 4
        domain = torch.where((place == 0) == (y % 2 == 0), 1 + place % (domains - 1 or 1), 0)
    last = len(x) - test_samples
    samples += options.get("meta_size", 0)
    if domains:
        options |= {"domains": domain[:samples], "domains_test": domain[last:]}
    kind = MultiLabelSymmetric(noise / 4) if multi_label else Symmetric(noise)
    y = multi_hot(y) if multi_label else y
    return Arrays(
        x[:samples], y[:samples], x[last:], y[last:], num_classes=CLASSES,
        label_noise=kind if noise else None, augment=CropFlip(1, flip=False) if augment else False,
        **{"batch_size": 16, **options},
    )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One training, in words that travel to another process."""

    method: type[PerturbationModule]
    options: dict[str, Any] = field(default_factory=dict)
    net: str = "mlp"
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Recipe:
        """With dicts merged and the rest replaced."""
        merged = {k: {**getattr(self, k), **v} if isinstance(v, dict) else v for k, v in changes.items()}
        return replace(self, **merged)


def trainer_of(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "logger": False,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in options.get("callbacks", ())),
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return Trainer(**{**quiet, **options})


def module_of(recipe: Recipe) -> PerturbationModule:
    options = {"optimizer": sgd, "lr_scheduler": decaying, **NEEDED.get(recipe.method.__name__, {}), **recipe.options}
    return recipe.method(NETS[recipe.net](), CLASSES, **options)


def fit(
    recipe: Recipe,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    ckpt_path: str | Path | None = None,
    data: LightningDataModule | None = None,
) -> Trainer:
    """Trains; the module is ``trainer.lightning_module``."""
    seed_everything(seed, verbose=False)
    module = module_of(recipe)
    trainer = trainer_of(callbacks=list(callbacks), **recipe.trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*callbacks used when the checkpoint was created.*")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*ModelCheckpoint.*")
        served = data or tiny_data(**{**meta_of(module), **recipe.data})
        trainer.fit(module, datamodule=served, ckpt_path=ckpt_path)
    return trainer


def resume(recipe: Recipe, path: str | Path, **kwargs: Any) -> Trainer:
    """Trains on from a checkpoint; what a start draws is drawn otherwise, so that nothing restores itself."""
    return fit(recipe, seed=kwargs.pop("seed", 987), ckpt_path=path, **kwargs)


def snapshot(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, buffers, optimizer state, rates and random state, flat and copied."""
    module = trainer.lightning_module
    found: dict[str, Tensor] = {f"module/{k}": v.detach().clone() for k, v in module.state_dict().items()}
    _flatten("kept", dict(module._rank_tensors), found)
    _flatten("optimizer", trainer.optimizers[0].state_dict(), found)
    if trainer.lr_scheduler_configs:
        _flatten("scheduler", trainer.lr_scheduler_configs[0].scheduler.state_dict(), found)
    found["random/torch"] = torch.get_rng_state()
    found["steps"] = torch.tensor([trainer.global_step, trainer.current_epoch])
    return found


def _flatten(prefix: str, value: Any, into: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        into[prefix] = value.detach().clone()
    elif isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}/{key}", item, into)
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            _flatten(f"{prefix}/{key}", item, into)
    elif isinstance(value, (int, float)):
        into[prefix] = torch.tensor(value, dtype=torch.float64)


def different(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> list[str]:
    """Names whose tensors differ; NaN equals NaN. An empty list says: the same."""
    names = sorted(one.keys() ^ other.keys())
    for name in sorted(one.keys() & other.keys()):
        a, b = one[name], other[name]
        same = a.shape == b.shape and a.dtype == b.dtype
        if same and a.is_floating_point():
            same = torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        elif same:
            same = torch.equal(a, b)
        if not same:
            names.append(name)
    return names


class LeaveAfter(Callback):
    """Ends the fit in the ordinary way, epochs before max_epochs, so that schedules over all epochs stay the same."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


class Saves(ModelCheckpoint):
    """A ModelCheckpoint that may stand beside others of its kind."""

    def __init__(self, folder: str | Path, name: str, **options: Any) -> None:
        self._name = name
        super().__init__(folder, filename=f"{name}-{{step}}", save_top_k=-1, **options)

    @property
    def state_key(self) -> str:
        return f"{super().state_key}/{self._name}"


def all_moments(folder: str | Path, every: int = 4) -> list[Callback]:
    """Checkpoints inside epochs, at the end of training epochs, and after validation."""
    return [
        Saves(folder, "batch", every_n_train_steps=every),
        Saves(folder, "epoch", save_on_train_epoch_end=True),
        Saves(folder, "validation", save_on_train_epoch_end=False),
    ]
