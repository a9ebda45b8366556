"""Writes down how each training sample fares in each epoch, from the forward pass that training does anyway."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_perturb.callbacks.dynamics import Floats, Ints, memorised
from lightning_perturb.callbacks.records import Records, can_be_told, keep_epochs, write_epoch
from lightning_perturb.callbacks.run import run_folder, true_labels
from lightning_perturb.core.distributed import gather_objects, gather_rows, rank
from lightning_perturb.core.needs import DataFacts
from lightning_perturb.functional import cross_entropy, margin


class Recorder(Callback):
    """Records margin, loss and prediction of every training sample and epoch, without an extra pass.

    They are those of the training forward: augmented inputs, the weights of that step, raw logits, given labels. The
    margin is the given class' logit minus the largest other one; the loss is plain cross-entropy, whatever the method
    minimises. So are the numbers that the method tells of each sample, such as ``perturbation_norm``, ``sample_loss``
    (the loss that it minimises) and ``hyperparameter/q``: every other floating-point tensor ``[B]`` in what
    ``training_step`` returns. The files (``margin.npy``, ``loss.npy``, ``prediction.npy``, ``given.npy``, and one for
    each told name) are memory-mapped by :class:`Records`. A run that is resumed goes on with the rows of the run
    before, also in another folder; a run that starts anew in a folder with records replaces them. Nothing is written
    under ``fast_dev_run``.

    Logs per epoch ``train/acc`` (on given labels) and, where true labels are known, ``train/acc_true`` and
    ``train/memorised``: the share of wrongly labelled training samples that are predicted as their wrong label; and the
    mean of each told number, ``train/<name>``, with ``train/<name>_clean`` and ``train/<name>_noisy`` where that is
    known.

    Works with every module whose ``training_step`` returns a mapping with ``logits`` ``[B, C]``, ``y`` ``[B]`` and
    ``index`` ``[B]``, as all methods of this package do; other batches are left out with one warning.

    Args:
        dirpath: Where the files go; None takes ``records`` in the folder of the run's logs.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath
        self.folder: Path | None = None
        self._num_classes = 0
        self._warned = False
        # each batch leaves a row of integers (index, given, predicted) and one of floats (margin, loss, and the told
        # numbers in the order of their names) a sample; names come with the first batch that has them
        self._ids: list[Tensor] = []
        self._values: list[Tensor] = []
        self._names: list[str] = []
        self._epoch: int | None = None
        self._source: Path | None = None
        self._device = torch.device("cpu")
        self._restored = False

    @property
    def records(self) -> Records | None:
        """What was written so far; None before the first epoch has ended."""
        if self.folder is None or not (self.folder / "margin.npy").is_file():
            return None
        return Records(self.folder)

    @staticmethod
    def of(trainer: Trainer, asker: str) -> "Recorder":
        """The recorder among a trainer's callbacks.

        Args:
            trainer: The trainer.
            asker: Name of the callback that needs it, for the message.

        Raises:
            ValueError: If there is none.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Recorder):
                return callback
        raise ValueError(f"{asker} reads what a Recorder wrote. Add Recorder() to the trainer's callbacks.")

    # the life of a run --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets what a checkpoint left for another stage."""
        self._restored = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the rows of the epochs before."""
        self._device = pl_module.device
        self._warned = False
        if not self._restored:
            self._source = self.folder
            self._forget()
        self._ids = [part.to(self._device) for part in self._ids]
        self._values = [part.to(self._device) for part in self._values]
        folder = (Path(self.dirpath) if self.dirpath is not None else run_folder(trainer) / "records").absolute()
        self.folder = None if trainer.fast_dev_run else folder  # type: ignore[attr-defined]
        if self.folder is not None and trainer.is_global_zero:
            self._take_over(trainer, self.folder)

    def _take_over(self, trainer: Trainer, folder: Path) -> None:
        # an epoch that was complete but not yet written when the checkpoint was made is still held here
        before = trainer.current_epoch if self._epoch is None else min(self._epoch, trainer.current_epoch)
        sources = [] if self._source is None else [self._source]
        checkpoint = None if trainer.ckpt_path is None else Path(str(trainer.ckpt_path)).absolute()
        if checkpoint is not None and checkpoint.parent.name == "checkpoints":
            # a run folder that was moved as a whole
            sources.append(checkpoint.parents[1] / "records")
        found = next((source for source in sources if (source / "margin.npy").is_file()), folder)
        kept = keep_epochs(found, folder, before)
        if kept < before and self._num_classes:
            looked = ", ".join(str(source) for source in [*sources, folder])
            warnings.warn(
                f"The records of {before - kept} of the {before} epochs before this resume are gone (looked in "
                f"{looked}). Their rows stay empty (NaN, -1), and reports are made from the others. To have them, put "
                "the old folder back and resume again.",
                stacklevel=2,
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Closes an epoch whose end a resumed run did not see."""
        if self._epoch is not None and self._epoch != trainer.current_epoch:
            self._write(trainer)
            self._forget()
        self._epoch = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch's numbers on the device; nothing is synchronised."""
        missing = _missing(outputs)
        if missing is not None:
            self._warn(missing)
            return
        told = told_numbers(outputs)
        self._names += [name for name in told if name not in self._names]
        ids, values = observe(
            outputs["logits"], outputs["y"], outputs["index"], [told.get(name) for name in self._names]
        )
        self._num_classes = outputs["logits"].shape[1]
        self._ids.append(ids)
        self._values.append(values)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes and logs the epoch."""
        if self._epoch is None:
            return
        metrics = self._write(trainer)
        for name, value in metrics.items():
            pl_module.log(f"train/{name}", value, sync_dist=True)
        self._forget()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes an epoch that was complete when the checkpoint was made, where no other one follows."""
        if self._epoch is not None:
            self._write(trainer)
            self._forget()

    def _write(self, trainer: Trainer) -> dict[str, float]:
        """Writes the rows of all ranks (rank 0 does) and returns the epoch's metrics, the same on all ranks."""
        all_ids, all_values, names = self._gathered()
        ids, values = all_ids.cpu().numpy(), all_values.cpu().numpy()
        if not len(ids):
            return {}
        index = ids[:, 0]
        facts = getattr(getattr(trainer, "datamodule", None), "facts", None)
        size = max(int(index.max()) + 1, facts.num_samples if isinstance(facts, DataFacts) else 0)
        # half the size of int32, and enough for all but the largest label sets
        small = np.int16 if self._num_classes <= np.iinfo(np.int16).max else np.int32
        given = _row(size, index, ids[:, 1].astype(np.int32), -1)
        prediction = _row(size, index, ids[:, 2].astype(small), -1)
        margins, losses, *told = (_row(size, index, column, np.nan) for column in values.T)
        named = dict(zip(names, told, strict=True))
        if self.folder is not None and self._epoch is not None and trainer.is_global_zero:
            write_epoch(
                self.folder, self._epoch, margin=margins, loss=losses, told=named, prediction=prediction, given=given
            )
        true = true_labels(trainer, size)
        return {**epoch_metrics(prediction, given, true), **told_means(named, given, true)}

    def _gathered(self) -> tuple[Tensor, Tensor, list[str]]:
        """The rows of all ranks, and the names of their columns behind margin and loss."""
        own = self._names
        names = list(dict.fromkeys(name for part in gather_objects(own) for name in part))
        ids = torch.cat(self._ids) if self._ids else torch.empty(0, 3, dtype=torch.int64, device=self._device)
        rows = [_widened(part, 2 + len(own)) for part in self._values]
        values = torch.cat(rows) if rows else torch.empty(0, 2 + len(own), device=self._device)
        placed = values.new_full((len(values), 2 + len(names)), torch.nan)
        placed[:, [0, 1, *(2 + names.index(name) for name in own)]] = values
        gathered_ids, gathered_values = gather_rows(ids, placed)
        return gathered_ids, gathered_values, names

    def _forget(self) -> None:
        self._ids, self._values, self._names, self._epoch = [], [], [], None

    def _warn(self, missing: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"Recorder records nothing of this run: {missing}", stacklevel=3)

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The rows of an epoch that is not complete, of all ranks, and where the others are."""
        ids, values, names = self._gathered()
        return {
            "epoch": self._epoch,
            "ids": ids.to("cpu", torch.int32),
            "values": values.cpu(),
            "names": names,
            "num_classes": self._num_classes,
            "folder": None if self.folder is None else str(self.folder),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them from a checkpoint; rank 0 holds the rows of all ranks from here on."""
        self._restored = True
        self._epoch = state_dict["epoch"]
        self._ids = [state_dict["ids"].long()] if rank() == 0 else []
        self._values = [state_dict["values"]] if rank() == 0 else []
        self._names = list(state_dict["names"])
        self._num_classes = state_dict["num_classes"]
        self._source = None if state_dict["folder"] is None else Path(state_dict["folder"])


@torch.no_grad()
def observe(logits: Tensor, y: Tensor, index: Tensor, told: Sequence[Tensor | None] = ()) -> tuple[Tensor, Tensor]:
    """What is recorded of a batch.

    Args:
        logits: Raw training logits ``[B, C]``.
        y: Given labels ``[B]``.
        index: Positions in the full training set ``[B]``.
        told: Further numbers ``[B]``, or None where the batch has none.

    Returns:
        int64 ``[B, 3]``: index, given label, predicted class; and float32 ``[B, 2 + n]``: margin, cross-entropy, the
        told numbers (NaN where there are none). They hold no reference to the logits.
    """
    logits, y = logits.detach().float(), y.long()
    loss = cross_entropy(logits, y)
    ids = torch.stack([index.to(y), y, logits.argmax(1)], 1)
    columns = [torch.full_like(loss, torch.nan) if part is None else part.detach().to(loss) for part in told]
    return ids, torch.stack([margin(logits, y), loss, *columns], 1)


def told_numbers(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The numbers of each sample by name, in alphabetical order, beside what is recorded of every method."""
    size = outputs["y"].shape
    return {
        name: value
        for name, value in sorted(outputs.items())
        if can_be_told(name) and isinstance(value, Tensor) and value.is_floating_point() and value.shape == size
    }


def told_means(told: Mapping[str, Floats], given: Ints, true: Ints | None) -> dict[str, float]:
    """The mean of each told number over all samples and, where true labels are known, over clean and noisy ones.

    Args:
        told: Numbers ``[N]`` by name, NaN where there are none.
        given: Given labels ``[N]``.
        true: True labels ``[N]``, or None.
    """
    means = {}
    for name, values in told.items():
        known = ~np.isnan(values)
        groups = {name: known}
        if true is not None:
            groups |= {f"{name}_clean": known & (given == true), f"{name}_noisy": known & (given != true)}
        means.update({group: float(values[part].mean()) for group, part in groups.items() if part.any()})
    return means


def epoch_metrics(prediction: Ints, given: Ints, true: Ints | None) -> dict[str, float]:
    """``acc`` and, where true labels are known, ``acc_true`` and ``memorised``.

    Args:
        prediction: Predicted classes ``[N]``, -1 where unseen; at least one was seen.
        given: Given labels ``[N]``, -1 where unseen.
        true: True labels ``[N]``, or None.
    """
    seen = prediction >= 0
    metrics = {"acc": float(np.mean(prediction[seen] == given[seen]))}
    if true is None:
        return metrics
    metrics["acc_true"] = float(np.mean(prediction[seen] == true[seen]))
    noisy = seen & (given != true)
    if noisy.any():
        metrics["memorised"] = memorised(prediction, given, noisy)
    return metrics


def _widened(rows: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, columns - rows.shape[1]), value=torch.nan)


def _row(size: int, index: npt.NDArray[np.int64], values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
    row = np.full(size, fill, dtype=values.dtype)
    row[index] = values
    return row


def _missing(outputs: Any) -> str | None:
    """Why a step cannot be recorded, with the remedy; None if it can."""
    if not isinstance(outputs, Mapping) or not {"logits", "y", "index"} <= outputs.keys():
        return (
            "its training_step does not return a dict with 'loss', 'logits', 'y' and 'index'. Return one, or use a "
            "method of lightning_perturb."
        )
    if outputs["index"] is None:
        return (
            "its batches carry no sample index. Use a lightning_perturb data module, put Wrap(datamodule=...) around "
            "yours, or yield (x, y, index)."
        )
    y: Tensor = outputs["y"]
    if y.ndim != 1 or y.is_floating_point():
        return f"its labels of shape {tuple(y.shape)} are no class ids. Remove the callback, or give class ids [B]."
    return None
