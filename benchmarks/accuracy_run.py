"""One run of a grid: trains, tests on clean labels as it goes, and returns the whole curve."""

from __future__ import annotations

import inspect
import json
import logging
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accuracy_grid import Run, Spec, build, build_data, build_method, with_environment
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lightning_perturb.attacks import Attack, right_under
from lightning_perturb.callbacks import Recorder
from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.core.evaluation import SampleMean
from lightning_perturb.core.group_accuracy import GroupAccuracy
from lightning_perturb.core.modes import evaluating
from lightning_perturb.data import PerturbationDataModule

_LOGGED = (
    "train/loss", "train/acc", "train/acc_true", "train/memorised",
    "val/acc", "val/worst_group_acc", "val/mean_group_acc", "val/mAP", "val/loss",
)  # fmt: skip
_TESTED = tuple(
    f"test/{name}"
    for name in (
        "acc", "robust_acc", "acc_head", "acc_medium", "acc_tail", "top5", "macro_precision",
        "worst_group_acc", "mean_group_acc", "train_weighted_acc",
        "mAP", "mAP_head", "mAP_medium", "mAP_tail", "macro_f1", "loss",
    )
)  # fmt: skip

# what sources have read; kept, since the runs of a grid mostly share one source
_READ: dict[str, Any] = {}


class Curve(Callback):
    """Keeps the numbers of every epoch, and tests every few epochs and after the last.

    Args:
        test_every: Epochs between two tests.
        report: Called after each epoch with the number of epochs done.
        attack: What the last epoch is tested under, too.
    """

    def __init__(self, test_every: int, report: Callable[[int], None], attack: Attack | None = None) -> None:
        self.test_every = test_every
        self.report = report
        self.attack = attack
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds an epoch."""
        row = {name: float(trainer.callback_metrics[name]) for name in _LOGGED if name in trainer.callback_metrics}
        done = trainer.current_epoch + 1
        if done % self.test_every == 0 or done == trainer.max_epochs:
            assert isinstance(pl_module, PerturbationModule)
            row.update(tested(trainer, pl_module, self.attack if done == trainer.max_epochs else None))
        self.rows.append(row)
        self.report(done)

    @property
    def columns(self) -> dict[str, list[float | None]]:
        """The curve by name; None where an epoch has no number."""
        names = [name for name in (*_TESTED, *_LOGGED) if any(name in row for row in self.rows)]
        return {name: [_rounded(row.get(name)) for row in self.rows] for name in names}


@torch.no_grad()
def tested(trainer: Trainer, module: PerturbationModule, attack: Attack | None) -> dict[str, float]:
    """Accuracy (of groups too) or mean average precision, and loss on clean test labels, by the method's evaluation.

    Args:
        trainer: The trainer.
        module: Its module.
        attack: What accuracy is measured under, too; None for no attack.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    metrics, loss = module.evaluation_metrics("test/").to(module.device), SampleMean().to(module.device)
    groups, robust = GroupAccuracy(module.num_classes).to(module.device), SampleMean().to(module.device)
    with evaluating(module), trainer.precision_plugin.forward_context():
        for item in data.test_dataloader():
            batch = data.on_after_batch_transfer(Batch.of(item).to(module.device), 0)
            logits = module.evaluation_logits(batch.view).float()
            module.update_metrics(metrics, logits, batch.y)
            loss.update(module.plain_loss(logits, batch.y))
            module.update_groups(groups, logits, batch)
            if attack is not None:
                robust.update(right_under([attack], module, batch, batch.index, data)[:, 1])
    further = {f"test/{name}": value for name, value in module.group_values(groups).items()}
    if attack is not None:
        further["test/robust_acc"] = robust.compute()
    values = {**module.metric_values(metrics), "test/loss": loss.compute(), **further}
    return {name: float(values[name]) for name in _TESTED if name in values}


def train(run: Run, device: str, threads: int, report: Callable[[int], None]) -> Spec:
    """Trains a run.

    Args:
        run: The run.
        device: ``cpu`` or ``cuda``.
        threads: Threads of PyTorch.
        report: Called after each epoch with the number of epochs done.

    Returns:
        What is kept of it. A loss that is not finite ends a run and is its result; other errors are raised.
    """
    config = with_environment(run.config)
    curve = Curve(config["test_every"], report, build(config.get("attack")))
    error = None
    started = time.perf_counter()
    with _quiet(threads), tempfile.TemporaryDirectory() as folder:
        data = build_data(config)
        _remember_reads(data, config["data"])
        # after the data: all methods of a seed start from the same weights
        seed_everything(run.seed, verbose=False)
        method = build_method(config)
        trainer = Trainer(
            **config["trainer"],
            accelerator=device,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            # what is recorded of a sample is its class
            callbacks=[_TestSet(), *([] if method.multi_label else [Recorder(dirpath=folder)]), curve],
        )
        try:
            trainer.fit(method, datamodule=data)
        except FloatingPointError as failure:
            error = str(failure)
    return {
        "row": run.row,
        "column": run.column,
        "seed": run.seed,
        "curve": curve.columns,
        "error": error,
        "epochs": trainer.max_epochs,
        "batch_size": data.batch_size,
        "train_samples": len(data.train_index),
        "val_samples": len(data.val_index),
        "test_samples": len(data.test_dataloader().dataset),
        "noise_rate": _rounded(data.noise_rate),
        "seconds": round(time.perf_counter() - started, 1),
        **facts(device, threads),
        "config": run.config,
    }


class _TestSet(Callback):
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # fit alone does not read it
        trainer.datamodule.setup("test")  # type: ignore[attr-defined]


def facts(device: str, threads: int) -> Spec:
    """Where and with what a number was measured."""
    cpu = f"{_processor()}, {threads} thread{'s' * (threads > 1)}"
    name = torch.cuda.get_device_name() if device == "cuda" else cpu
    return {
        "device": name,
        "commit": commit(),
        "versions": {package: version(package) for package in ("torch", "lightning")},
    }


@cache
def commit() -> str:
    """The git commit of the code, marked where the code was changed since; "unknown" outside a repository."""
    here = Path(__file__).parent.parent
    try:
        head = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--", "lightning_perturb"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed.strip() else head


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextmanager
def _quiet(threads: int) -> Iterator[None]:
    logger = logging.getLogger("lightning.pytorch")
    level, before = logger.level, torch.get_num_threads()
    logger.setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            # nothing of this is about the run: data in memory, a grid without validation, Lightning's own calls
            for message in ("does not have many workers", "Total length of", "LeafSpec"):
                warnings.filterwarnings("ignore", message=f".*{message}.*")
            yield
    finally:
        logger.setLevel(level)
        torch.set_num_threads(before)


def _remember_reads(data: PerturbationDataModule, spec: Spec) -> None:
    """Lets the next data module of the same source find what this one reads."""
    parents = [cls for cls in PerturbationDataModule.__mro__ if "__init__" in vars(cls)]
    drawn = {name for cls in parents for name in inspect.signature(cls).parameters}
    source = {name: value for name, value in spec.get("init_args", {}).items() if name not in drawn}
    key = json.dumps([spec["class_path"], source], sort_keys=True)
    if key not in _READ:
        _READ.clear()
        _READ[key] = {}
    for name in ("read", "read_meta", "read_domains", "read_meta_domains", "evaluation_domains"):
        # a method of this one object is replaced
        setattr(data, name, _remembered(getattr(data, name), name, _READ[key]))


def _remembered(read: Callable[..., Any], name: str, known: dict[Any, Any]) -> Callable[..., Any]:
    def remembered(*split: str) -> Any:
        asked = (name, *split)
        if asked not in known:
            known[asked] = read(*split)
        return known[asked]

    return remembered


def _rounded(value: float | None) -> float | None:
    # NaN, which says that nobody knows, is not JSON
    return None if value is None or value != value else float(f"{value:.5g}")
