"""Predictions as a table on disk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_perturb.callbacks.run import run_folder
from lightning_perturb.core.distributed import gather_objects


class PredictionWriter(Callback):
    """Writes what ``predict`` found as CSV: sample, predicted class, its probability, and all probabilities.

    Of a multi-label method: sample, the predicted classes with spaces between, and all probabilities.

    Args:
        path: The file; None takes ``predictions.csv`` in the run's log folder.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._rows: list[tuple[int, int | list[int], list[float]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts an empty table."""
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch's rows."""
        index = outputs["index"]
        if index is None:
            if trainer.world_size > 1:
                raise ValueError(
                    f"The batches carry no sample index: predictions of {trainer.world_size} processes cannot be put "
                    "in order. Predict on one device, or yield (x, y, index)."
                )
            index = torch.arange(len(outputs["pred"])) + len(self._rows)
        rows = zip(index.tolist(), outputs["pred"].tolist(), outputs["prob"].tolist(), strict=True)
        self._rows.extend(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table of all ranks, in order of the samples."""
        rows = sorted(row for part in gather_objects(self._rows) for row in part)
        folder = run_folder(trainer)
        if not trainer.is_global_zero or not rows:
            return
        path = Path(self.path or folder / "predictions.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            several = isinstance(rows[0][1], list)
            first = ["predictions"] if several else ["prediction", "probability"]
            writer.writerow(["sample", *first, *(f"p_{c}" for c in range(len(rows[0][2])))])
            for sample, prediction, prob in rows:
                writer.writerow([sample, *_decision(prediction, prob), *(f"{p:.6f}" for p in prob)])
        self.path = str(path)
        print(f"Predictions: {path}")


def _decision(prediction: int | list[int], prob: list[float]) -> list[Any]:
    if isinstance(prediction, list):
        return [" ".join(str(c) for c, on in enumerate(prediction) if on)]
    return [prediction, f"{prob[prediction]:.6f}"]
