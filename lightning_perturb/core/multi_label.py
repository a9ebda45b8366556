"""The base of methods for several labels at once: binary cross-entropy of each class, averaged."""

from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.evaluation import multi_label_metrics
from lightning_perturb.core.group_accuracy import GroupAccuracy
from lightning_perturb.core.groups import known_means
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.functional.cross_entropy import binary_cross_entropy, binary_cross_entropy_entries

# what single-label evaluation logs and this does not
_SINGLE_LABEL = tuple(
    f"val/{name}"
    for name in ("acc", "error", "balanced_acc", "macro_precision", "ece", "top5", "acc_head", "acc_medium", "acc_tail")
)


class MultiLabelModule(PerturbationModule):
    """A method for labels that name any number of classes: one 0 or 1 for each class.

    The loss of a sample is the mean over classes of :meth:`entry_losses`, which is where methods reweight or replace
    the binary losses; what moves logits does so in ``perturb_logits``, as everywhere. Both cooperate through
    ``super()``. Evaluation is by mean average precision, over all classes and over the head, the medium and the tail
    by the number of positives in the training set.

    Args:
        head_from: Positives from which a class counts as head in ``mAP_head``; 100, as published for VOC-MLT and
            COCO-MLT, with ``tail_below`` 20.
        **kwargs: Arguments of the methods that it is combined with, and of
            :class:`~lightning_perturb.core.PerturbationModule`.
    """

    multi_label = True

    def __init__(self, *args: Any, head_from: int = 100, **kwargs: Any) -> None:
        super().__init__(*args, head_from=head_from, **kwargs)

    # the loss -----------------------------------------------------------------------------------------------------

    def entry_losses(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The binary loss of each sample and class ``[B, C]``."""
        return binary_cross_entropy_entries(logits, target)

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The mean of :meth:`entry_losses` over the classes ``[B]``."""
        entries = self.entry_losses(logits, target, batch)
        if self.asked("compared"):
            batch.extra["entry_losses"] = entries.detach()
        return entries.mean(1)

    def plain_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy ``[B]``, the mean over the classes."""
        return binary_cross_entropy(logits, target)

    def comparable_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of each sample and class ``[B, C]``."""
        return binary_cross_entropy_entries(logits, target)

    def compared(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Labels, l and l' of samples and classes ``[B, C]``.

        What multiplies or raises the loss of a whole sample does so with all of its entries in proportion.
        """
        found, entries = super().compared(outputs, batch), batch.extra.get("entry_losses")
        if found is None or entries is None:
            return None
        target, plain, perturbed = found
        mean = entries.mean(1)
        share = torch.where(mean > 0, perturbed / torch.where(mean > 0, mean, 1.0), 1.0)
        return target, plain, share.unsqueeze(1) * entries

    # labels -------------------------------------------------------------------------------------------------------

    def _as_target(self, y: Tensor) -> Tensor:
        return y if y.is_floating_point() else y.to(torch.get_default_dtype())

    def _check_labels(self, y: Tensor, which: str) -> None:
        if not bool(((y == 0) | (y == 1)).all()):
            wrong = y[(y != 0) & (y != 1)][0]
            raise ValueError(f"{which} is {float(wrong):g}; a multi-label target holds one 0 or 1 for every class.")

    def _checked(self, batch: Batch) -> Batch:
        self._check_multi_hot(batch.y, "Labels")
        return super()._checked(batch)

    def _checked_eval(self, batch: Batch) -> Batch:
        batch.y = self._as_target(batch.y)
        self._check_multi_hot(batch.y, "Evaluation labels")
        if batch.y.device.type == "cpu":
            self._check_labels(batch.y, "An evaluation label")
        return batch

    def _check_multi_hot(self, y: Tensor, which: str) -> None:
        if y.ndim != 2 or y.shape[1] != self.num_classes:
            what = "are class ids" if y.ndim == 1 else "do not fit"
            raise ValueError(
                f"{which} of shape {tuple(y.shape)} {what}; {type(self).__name__} with num_classes={self.num_classes} "
                f"reads one 0 or 1 for every class, [B, {self.num_classes}]. Yield multi-hot labels, or use a "
                "single-label method, such as CrossEntropy."
            )

    # evaluation ---------------------------------------------------------------------------------------------------

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each class by itself ``[B, C]``."""
        return logits.sigmoid()

    def predictions(self, prob: Tensor) -> Tensor:
        """1 for each class that is more probable than not, otherwise 0 ``[B, C]``."""
        return (prob > 0.5).long()

    def evaluation_metrics(self, prefix: str) -> MetricCollection:
        """Average precision by class, macro F1 and exact matches."""
        return multi_label_metrics(self.num_classes, prefix)

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor) -> None:
        """Adds a batch; what ranks samples does not saturate, as the sigmoid does."""
        metrics.update((1 + torch.nn.functional.softsign(logits)) / 2, target.long())

    def update_groups(self, groups: GroupAccuracy, logits: Tensor, batch: Batch) -> None:
        """Nothing: a group is one class in a domain."""

    def metric_values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """mAP over all classes, and over head, medium and tail where there are several groups; F1; exact matches.

        Classes without a positive sample do not count.
        """
        values, prefix = metrics.compute(), metrics.prefix
        precision = values.pop(f"{prefix}average_precision")
        groups = {f"{prefix}mAP": torch.ones_like(precision, dtype=torch.bool), **self.class_groups(f"{prefix}mAP")}
        return {**known_means(precision, groups), **values}

    # life cycle ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """As in the base; checks that no callback waits for a metric of single-label evaluation."""
        super().setup(stage)
        if stage != "fit":
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            self._check_monitor(callback)

    def _check_monitor(self, callback: Callback) -> None:
        monitor = getattr(callback, "monitor", None)
        if monitor in _SINGLE_LABEL:
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, which a multi-label method does not log. Monitor "
                "val/mAP, val/macro_f1, val/exact_match or val/loss (configs/trainer/multi_label.yaml does the first)."
            )
