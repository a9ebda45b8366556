"""What is timed: every method with its network, optimizer, batches and a stand-in for the trainer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lightning_perturb import methods, nets
from lightning_perturb.core import Batch, DataFacts, PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.core.manual import ManualModule

CLASSES, DOMAINS, SAMPLES = 10, 2, 50_000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PLAIN, AGAIN = "CrossEntropy", "CrossEntropy (again)"

# further settings of methods that do other work than at their defaults; every method is measured without being named
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "LogPert alternating": ("LogPert", {"update": "alternating"}),
    "LogPert joint": ("LogPert", {"update": "joint"}),
    "LPL 10 steps": ("LPL", {"split": "frequency", "delta_eps": 1.5, "alpha": 0.15}),
    "LPL 40 steps": ("LPL", {"eps": 0.4, "delta_eps": 0.0, "alpha": 0.01}),
    "MixPert epoch_quantile": ("MixPert", {"threshold": "epoch_quantile"}),
    "MixPert eps2=8/255": ("MixPert", {"eps2": 8 / 255}),
}

# the first start from another run, a teacher or an adjuster; the last go through the training set before their steps
_NOT_FROM_STEPS = ("KnowledgeDistillation", "BalancedKnowledgeDistillation", "TransferredRobustLoss", "RISDA", "D2L")


@dataclass(frozen=True)
class Options:
    """What is measured how."""

    net: str = "ResNet20"
    batch: int = 128
    precision: str = "32"
    device: str = "cpu"
    channels_last: bool = False
    threads: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a step."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def wait(self) -> None:
        """Waits until the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def build_net(self) -> nn.Module:
        """The network, the same for everyone."""
        torch.manual_seed(0)
        net: nn.Module = getattr(nets, self.net)(num_classes=CLASSES).to(self.device)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)
        return net


def contenders() -> dict[str, Callable[..., PerturbationModule]]:
    """Every method, found and not listed, cross-entropy first; bilevel.py has those that learn from a meta stream.

    One that makes steps of its own, as many as its data ask for, has no floor to be compared with.
    """
    found: dict[str, Callable[..., PerturbationModule]] = {PLAIN: methods.CrossEntropy, AGAIN: methods.CrossEntropy}
    for cls in subclasses():
        ours = cls.__module__.startswith(f"{methods.__name__}.") and not cls.__name__.startswith("_")
        own_steps = issubclass(cls, ManualModule)
        if ours and not (cls.needs.meta or cls.needs.truth or own_steps or cls.__name__ in _NOT_FROM_STEPS):
            found.setdefault(cls.__name__, cls)
    for name, (base, arguments) in SETTINGS.items():
        found[name] = partial(found[base], **arguments)
    return found


def make_batches(options: Options, count: int = 4) -> list[Batch]:
    """Batches with two views of images that have the pixel statistics of CIFAR-10: mean, deviation and smoothness."""
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    batches = []
    for _ in range(count):
        views = []
        for _ in range(2):
            coarse = torch.randn(options.batch, 3, 8, 8, generator=generator)
            smooth = F.interpolate(coarse, size=32, mode="bicubic")
            x = smooth / smooth.std() + 0.2 * torch.randn(smooth.shape, generator=generator)
            pixels = ((x / x.std() * std + mean).clamp(0, 1) * 255).round() / 255
            views.append(((pixels - mean) / std).to(options.device))
        if options.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        y = torch.randint(CLASSES, (options.batch,), generator=generator).to(options.device)
        index = torch.randperm(SAMPLES, generator=generator)[: options.batch].to(options.device)
        domain = torch.randint(DOMAINS, (options.batch,), generator=generator).to(options.device)
        batches.append(Batch((views[0], views[1]), y, index, {"domain": domain}))
    return batches


class Contender:
    """A method with its network, optimizer and a stand-in for the trainer.

    Args:
        make: The method's class, with arguments where it has other settings.
        options: What is measured how.
    """

    def __init__(self, make: Callable[..., PerturbationModule], options: Options) -> None:
        self.options = options
        self.module = make(net=options.build_net(), num_classes=CLASSES, channels_last=options.channels_last)
        self.module.to(options.device).train()
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        counts = np.full(CLASSES, SAMPLES // CLASSES)
        groups = np.full((CLASSES, DOMAINS), SAMPLES // CLASSES // DOMAINS)
        facts = DataFacts(
            SAMPLES, CLASSES, counts, MEAN, STD, self.module.multi_label, SAMPLES,
            num_domains=DOMAINS, group_counts=groups,
        )  # fmt: skip
        self.trainer = SimpleNamespace(
            current_epoch=1,
            global_step=0,
            max_epochs=100,
            estimated_stepping_batches=100_000,
            world_size=1,
            precision="32-true",
            log_every_n_steps=50,
            optimizers=[self.optimizer],
            callbacks=[],
            datamodule=SimpleNamespace(facts=facts),
        )
        self.module._trainer = self.trainer  # type: ignore[assignment]
        setattr(self.module, "log", _ignore)  # noqa: B010 - logging belongs to the loop
        self.module.setup("fit")
        if isinstance(self.module, methods.PGDTraining):
            # not the first epoch of attacks, in which inputs are checked
            self.module._pixels_checked = 0
        self.module.to(options.device)

    def step(self, batch: Batch) -> None:
        """One training step."""
        views = batch.x if self.module.needs.views > 1 else batch.view
        # a batch of its own: methods write into it
        y = F.one_hot(batch.y, CLASSES).float() if self.module.multi_label else batch.y
        fresh = Batch(views, y, batch.index, dict(batch.extra))
        with self.options.autocast():
            loss = self.module.training_step(fresh, self.trainer.global_step)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.trainer.global_step += 1


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Takes the place of logging."""
