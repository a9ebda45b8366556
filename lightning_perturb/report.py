"""What ``fit`` ends with: results on clean test labels, suspected labels, and where everything is."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console
from rich.table import Table

from lightning_perturb.callbacks import SuspectReport
from lightning_perturb.callbacks.run import run_folder
from lightning_perturb.data import PerturbationDataModule

_NAMES = {
    "test/acc": "accuracy",
    "test/error": "error",
    "test/robust_acc": "accuracy under attack",
    "test/balanced_acc": "balanced accuracy",
    "test/acc_head": "accuracy, head",
    "test/acc_medium": "accuracy, medium",
    "test/acc_tail": "accuracy, tail",
    "test/worst_group_acc": "accuracy, worst group",
    "test/mean_group_acc": "accuracy, mean over groups",
    "test/train_weighted_acc": "accuracy, groups as in training",
    "test/macro_precision": "macro precision",
    "test/top5": "top-5 accuracy",
    "test/ece": "calibration error (ECE)",
    "test/mAP": "mean average precision",
    "test/mAP_head": "mAP, head",
    "test/mAP_medium": "mAP, medium",
    "test/mAP_tail": "mAP, tail",
    "test/macro_f1": "macro F1",
    "test/exact_match": "all labels right",
    "test/loss": "cross-entropy",
}

_GROUP = "test/group_acc/"

_SUSPECTS = {
    "suspects/auroc": "AUROC",
    "suspects/precision": "precision at the noise rate",
    "suspects/repaired_acc": "labels right after repair",
}


def print_report(trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None) -> None:
    """Tests the last and the best epoch and prints tables; must be called on all ranks.

    Args:
        trainer: The trainer that has just fitted.
        module: Its module.
        datamodule: Its data.
    """
    fitted = {name: float(value) for name, value in trainer.callback_metrics.items()}
    best = _best_checkpoint(trainer)
    columns = {}
    if _has_test(datamodule):
        columns["last epoch"] = _test(trainer, module, datamodule, None)
        if best is not None:
            columns["best validation epoch"] = _test(trainer, module, datamodule, best)
    folder = run_folder(trainer)
    if not trainer.is_global_zero:
        return
    console = Console()
    if columns:
        console.print(_result_table(columns, fitted))
    else:
        console.print("No test split: the data has nothing to measure the result on but the log's validation figures.")
    suspects = [callback for callback in trainer.callbacks if isinstance(callback, SuspectReport)]  # type: ignore[attr-defined]
    for report in suspects:
        _print_suspects(console, report)
    _print_places(console, trainer, folder, best)


def _has_test(datamodule: LightningDataModule | None) -> bool:
    if isinstance(datamodule, PerturbationDataModule):
        return datamodule.has_test
    return datamodule is not None and is_overridden("test_dataloader", datamodule)


def _test(
    trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None, checkpoint: str | None
) -> dict[str, float]:
    results = trainer.test(module, datamodule=datamodule, ckpt_path=checkpoint, verbose=False, weights_only=True)
    return dict(results[0]) if results else {}


def _best_checkpoint(trainer: Trainer) -> str | None:
    """The checkpoint of the best validation epoch, if one was monitored."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and Path(callback.best_model_path).is_file():
            return callback.best_model_path
    return None


def _result_table(columns: dict[str, dict[str, float]], fitted: dict[str, float]) -> Table:
    table = Table(title="Test set, clean labels")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    groups = {key: _group_name(key) for values in columns.values() for key in values if key.startswith(_GROUP)}
    for key, name in (_NAMES | groups).items():
        if any(key in values for values in columns.values()):
            table.add_row(name, *(f"{values[key]:.4f}" if key in values else "-" for values in columns.values()))
    if "train/memorised" in fitted:
        share = f"{fitted['train/memorised']:.4f}"
        table.add_row("noisy labels memorised", share, *["-"] * (len(columns) - 1))
    return table


def _group_name(key: str) -> str:
    return f"accuracy, {key.removeprefix(_GROUP).replace('/', ' / ')}"


def _print_suspects(console: Console, report: SuspectReport) -> None:
    if report.path is None:
        return
    console.print(f"{report.listed} training labels look wrong: {report.path}", soft_wrap=True)
    if report.sheet_path is not None:
        kind = "as texts" if report.sheet_path.suffix == ".txt" else "as a picture"
        console.print(f"  the most suspect {kind}: {report.sheet_path}", soft_wrap=True)
    known = [f"{name} {report.summary[key]:.3f}" for key, name in _SUSPECTS.items() if key in report.summary]
    if known:
        console.print(f"  against the true flips: {', '.join(known)}", soft_wrap=True)


def _print_places(console: Console, trainer: Trainer, folder: Path, best: str | None) -> None:
    places = {"logs": str(folder), "best checkpoint": best}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            places["last checkpoint"] = callback.last_model_path or callback.best_model_path
    if (folder / "config.yaml").is_file():
        places["config"] = str(folder / "config.yaml")
    for name, place in places.items():
        if place:
            console.print(f"{name + ':':17}{place}", soft_wrap=True)
