"""Evaluation on clean labels, the same for every method."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassPrecision,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchmetrics.utilities.data import dim_zero_cat

# below this number of classes the top five hold most of them and the figure says nothing
_TOP5_FROM = 20


class ErrorRate(MulticlassAccuracy):
    """The share of samples whose most probable class is not their label: 1 - accuracy, from the same counts.

    Args:
        num_classes: Number of classes.
    """

    higher_is_better = False

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="micro", validate_args=False)

    def compute(self) -> Tensor:
        """The metric, 1 where there are no samples."""
        return 1 - super().compute()


class ClassRecall(MulticlassAccuracy):
    """The recall of each class; NaN for classes that do not occur among the labels.

    In a collection it shares what it counts with the means that are made of it.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def compute(self) -> Tensor:
        """The recalls ``[C]``."""
        hit, _, _, missed = self._final_state()
        total = hit + missed
        return torch.where(total > 0, hit / total.clamp(min=1), torch.nan)


class BalancedAccuracy(ClassRecall):
    """The mean of the classes' recalls, over the classes that occur among the labels.

    A class that is predicted but has no sample is no class of recall 0, as it is in torchmetrics' macro average.

    Args:
        num_classes: Number of classes.
    """

    def compute(self) -> Tensor:
        """The metric, 0 where there are no samples."""
        recall = super().compute()
        return recall.nansum() / (~recall.isnan()).sum().clamp(min=1)


class SampleMean(Metric):
    """The mean of a number over all samples, however they fall on batches and ranks; NaN stays NaN.

    Lightning's own mean over ranks rounds the mean number of samples down to a whole one.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Adds numbers ``[B]``."""
        # not in place: what an evaluation in inference mode left cannot be changed outside it
        self.total = self.total + values.sum()
        self.count = self.count + values.numel()

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


class TopAccuracy(SampleMean):
    """The share of samples whose label is among the ``k`` most probable classes.

    torchmetrics' own counts a batch of one sample wrongly.

    Args:
        k: How many classes.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def update(self, preds: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Adds probabilities ``[B, C]`` and class ids ``[B]``."""
        super().update((preds.topk(self.k, dim=1).indices == target[:, None]).any(1))


def classification_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Accuracy, error, recall by class and their mean, macro precision, calibration error; top-5 from 20 classes on.

    Args:
        num_classes: Number of classes.
        prefix: Put before each name, such as ``test/``.

    Returns:
        A collection to be updated with probabilities ``[B, C]`` and class ids ``[B]``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
        "error": ErrorRate(num_classes),
        "recall": ClassRecall(num_classes),
        "balanced_acc": BalancedAccuracy(num_classes),
        "macro_precision": MulticlassPrecision(num_classes, average="macro", validate_args=False),
        "ece": MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False),
    }
    if num_classes >= _TOP5_FROM:
        metrics["top5"] = TopAccuracy(5)
    return MetricCollection(metrics, prefix=prefix)


class LabelAveragePrecision(MultilabelAveragePrecision):
    """The average precision of each class; NaN for classes without a positive sample.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As in the base; a rank that has seen no sample takes part with no rows, where torchmetrics breaks off."""
        if not self.preds:
            self.preds.append(torch.empty(0, self.num_labels, device=self.device))
            self.target.append(torch.empty(0, self.num_labels, device=self.device, dtype=torch.int64))
        super().sync(*args, **kwargs)

    def compute(self) -> Tensor:  # type: ignore[override]
        """The average precisions ``[C]``."""
        positives = dim_zero_cat(self.target).any(0)
        with warnings.catch_warnings():
            # torchmetrics gives 0 where recall is not defined
            warnings.filterwarnings("ignore", "No positive samples")
            return torch.where(positives, super().compute(), torch.nan)


def multi_label_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Average precision by class, macro F1 and exact matches.

    Args:
        num_classes: Number of classes.
        prefix: Put before each name, such as ``test/``.

    Returns:
        A collection to be updated with numbers in [0, 1] that are above a half where a class is predicted ``[B, C]``,
        and multi-hot labels ``[B, C]``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "average_precision": LabelAveragePrecision(num_classes),
        "macro_f1": MultilabelF1Score(num_classes, average="macro", validate_args=False),
        "exact_match": MultilabelExactMatch(num_classes, validate_args=False),
    }
    return MetricCollection(metrics, prefix=prefix)
