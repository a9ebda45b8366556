"""Tiny meta-learned trainings, and the same step written by hand on `higher`, the independent reference."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import higher
import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_perturb.core import Batch, MetaPerturbationModule, PerturbationModule
from lightning_perturb.data import Arrays, Symmetric
from lightning_perturb.methods import MetaWeightNet

CLASSES, FEATURES, COUNT = 4, 6, 60
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def arrays(**options: Any) -> Arrays:
    """Separable features with flipped labels and 8 clean meta samples; 52 training samples in 7 batches of 8."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    x = generator.normal(size=(COUNT, FEATURES)) + np.eye(CLASSES, FEATURES)[labels] * 2
    defaults: dict[str, Any] = {"label_noise": Symmetric(0.4), "meta_size": 8, "meta_batch_size": 6, "batch_size": 8}
    return Arrays(x.astype(np.float64), labels, num_classes=CLASSES, **{**defaults, **options})


class WithFeatures(nn.Module):
    """Gives its features beside its logits, for references that must not read them as the methods do."""

    def __init__(self, width: int = 5, norm: bool = False) -> None:
        super().__init__()
        norms = [nn.BatchNorm1d(width)] if norm else []
        self.body = nn.Sequential(nn.Linear(FEATURES, width), *norms, nn.Tanh())
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


def mlp(norm: bool = False, dropout: float = 0.0) -> nn.Module:
    norms = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(FEATURES, 8), *norms, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, CLASSES))


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.2, momentum=0.9, weight_decay=1e-3)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.05, weight_decay=1e-4)


def fit(
    module: L.LightningModule,
    data: Any = None,
    callbacks: Sequence[Callback] = (),
    ckpt_path: Any = None,
    **options: Any,
) -> L.Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 1, "accelerator": "cpu", "devices": 1, "precision": "64-true", "logger": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
    }  # fmt: skip
    trainer = L.Trainer(callbacks=list(callbacks), **{**defaults, **options})
    with warnings.catch_warnings():
        for text in (".*callbacks used to create the checkpoint.*", ".*many workers.*", ".*val_dataloader.*",
                     ".*Total length.*"):  # fmt: skip
            warnings.filterwarnings("ignore", text)
        trainer.fit(module, datamodule=arrays() if data is None else data, ckpt_path=ckpt_path)
    return trainer


def batches(seed: int = 0, size: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Batch, Batch]:
    """A training and a meta batch."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for number in range(2):
        x = torch.randn(size, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
        y = torch.randint(CLASSES, (size,), generator=generator)
        parts.append(Batch(x, y, torch.arange(size) + number * size))
    return parts[0], parts[1]


def reference(module: MetaPerturbationModule, train: Batch, meta: Batch, lr: float) -> list[Tensor]:
    """dM/dθ by `higher` alone: its patched network, its differentiable SGD and autograd through the step."""
    net = copy.deepcopy(module.net)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (patched, differentiable):
        differentiable.step(module.loss(module.outputs(patched, train.copy()), train.copy()))
        outer = F.cross_entropy(patched(meta.x), meta.y)
        return list(torch.autograd.grad(outer, module.theta()))


def assert_hypergradient(module: MetaPerturbationModule, lr: float = 0.7) -> list[Tensor]:
    """The module's hypergradient is the reference's to 1e-10 and nowhere zero."""
    train, meta = batches()
    expected = reference(module, train, meta, lr)
    found = module.hypergradient(train, meta, lr).gradients
    for one, other in zip(found, expected, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-10 * other.norm()
    return found


def weight_net(norm=False, dropout=0.0, seed=0, cls=MetaWeightNet, **options):
    torch.manual_seed(seed)
    return cls(mlp(norm, dropout), CLASSES, **{"optimizer": sgd, "meta_optimizer": adam, "hidden": 5, **options})


class Sharpened(PerturbationModule):
    """Logits times a number."""

    def __init__(self, *args, strength=1.0, name="x", **kwargs):
        super().__init__(*args, **kwargs)
        self.strength = strength
        self.name = name

    def perturb_logits(self, logits, outputs, batch):
        return self.strength * logits


class MetaSharpened(MetaPerturbationModule, Sharpened):
    """The same, learned."""


def sharpened(interval=(0.0, 4.0), **options):
    torch.manual_seed(0)
    options = {"optimizer": sgd, "meta_parameters": {"strength": interval}, **options}
    return MetaSharpened(mlp(), CLASSES, **options)


def tensors(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Each(Callback):
    """Calls a function with the module after every batch."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.function(pl_module)


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0)
