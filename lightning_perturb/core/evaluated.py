"""How every method is evaluated: alike, on clean labels, over all samples and over groups of them."""

from typing import Any, Literal

from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.evaluation import SampleMean, classification_metrics
from lightning_perturb.core.group_accuracy import GroupAccuracy, group_values
from lightning_perturb.core.groups import ClassGroups, known_means


class EvaluatedModule(LightningModule):
    """A module whose validation, test and prediction read one set of logits.

    A subclass has the attributes below, and calls :meth:`_add_metrics` once it has its number of classes.
    """

    num_classes: int
    groups: ClassGroups
    class_counts: Tensor
    true_counts: Tensor
    group_counts: Tensor
    val_metrics: MetricCollection
    test_metrics: MetricCollection
    val_loss: SampleMean
    test_loss: SampleMean
    val_groups: GroupAccuracy
    test_groups: GroupAccuracy

    def _add_metrics(self) -> None:
        self.val_metrics = self.evaluation_metrics("val/")
        self.test_metrics = self.evaluation_metrics("test/")
        self.val_loss = SampleMean()
        self.test_loss = SampleMean()
        self.val_groups = GroupAccuracy(self.num_classes)
        self.test_groups = GroupAccuracy(self.num_classes)

    def plain_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss that evaluation reports ``[B]``."""
        raise NotImplementedError(f"{type(self).__name__} must give its plain loss.")

    # what is read -------------------------------------------------------------------------------------------------

    def evaluation_logits(self, x: Any) -> Tensor:
        """Logits that evaluation and prediction read; methods with a post-hoc term override it."""
        return self(x)  # type: ignore[no-any-return]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes ``[B, C]``."""
        return logits.softmax(1)

    def predictions(self, prob: Tensor) -> Tensor:
        """What :meth:`probabilities` decide for: ids ``[B]``."""
        return prob.argmax(1)

    def evaluation_metrics(self, prefix: str) -> MetricCollection:
        """The metrics of an evaluation, their names beginning with ``prefix``."""
        return classification_metrics(self.num_classes, prefix)

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, target: Tensor) -> None:
        """Adds a batch to :meth:`evaluation_metrics`."""
        metrics.update(self.probabilities(logits), target)

    def metric_values(self, metrics: MetricCollection) -> dict[str, Tensor]:
        """The numbers to log of :meth:`evaluation_metrics`; recalls of classes become accuracies of groups of them."""
        values = metrics.compute()
        recall = values.pop(f"{metrics.prefix}recall", None)
        groups = {} if recall is None else known_means(recall, self.class_groups(f"{metrics.prefix}acc"))
        return {**values, **groups}

    def class_groups(self, name: str) -> dict[str, Tensor]:
        """The classes of head, medium and tail ``[C]``, in bool, by ``<name>_head`` and so on.

        Samples are counted by true labels where the data knows them, since noise moves many from the head to the
        tail. Empty where no counts are known, or where all classes are of one group.
        """
        counts = self.true_counts if self.true_counts.any() else self.class_counts
        return {f"{name}_{group}": members for group, members in self.groups.members(counts).items()}

    def update_groups(self, groups: GroupAccuracy, logits: Tensor, batch: Batch) -> None:
        """Adds a batch to the accuracies by group, where it tells its samples' domains."""
        if "domain" in batch.extra:
            right = self.predictions(self.probabilities(logits)) == batch.y
            groups.update(right, batch.y, batch.extra["domain"])

    def group_values(self, groups: GroupAccuracy) -> dict[str, Tensor]:
        """The numbers to log of the groups, a class in a domain each; none where samples have no domains."""
        if not groups.agree():
            return {}
        training = None if groups.overlapping else self.group_counts
        return group_values(groups.compute(), training, *self.names_of_groups())

    def names_of_groups(self) -> tuple[Any, Any]:
        """The data's names of classes and of the domains that evaluation groups by, as it gives them; or none."""
        data = getattr(self.trainer, "datamodule", None)
        domains = getattr(data, "evaluation_domain_names", getattr(data, "domain_names", ()))
        return getattr(data, "class_names", ()), domains

    # steps --------------------------------------------------------------------------------------------------------

    def _evaluate(self, batch: Any, stage: Literal["val", "test"]) -> None:
        batch = self._checked_eval(Batch.of(batch))
        if not len(batch):
            return
        logits = self.evaluation_logits(batch.view).float()
        metrics, loss, groups = self._metrics(stage)
        self.update_metrics(metrics, logits, batch.y)
        loss.update(self.plain_loss(logits, batch.y))
        self.update_groups(groups, logits, batch)

    def _metrics(self, stage: Literal["val", "test"]) -> tuple[MetricCollection, SampleMean, GroupAccuracy]:
        if stage == "val":
            return self.val_metrics, self.val_loss, self.val_groups
        return self.test_metrics, self.test_loss, self.test_groups

    def _log_metrics(self, stage: Literal["val", "test"]) -> None:
        metrics, loss, groups = self._metrics(stage)
        # the metrics are synchronised; sync_dist only spares the user Lightning's advice to set it
        self.log(f"{stage}/loss", loss.compute(), prog_bar=stage == "val", sync_dist=True)
        self.log_dict(self.metric_values(metrics), sync_dist=True)
        by_group = {f"{stage}/{name}": value for name, value in self.group_values(groups).items()}
        self.log_dict(by_group, sync_dist=True)
        metrics.reset()
        loss.reset()
        groups.reset()

    def _checked_eval(self, batch: Batch) -> Batch:
        batch.y = self._as_target(batch.y)
        if batch.y.ndim != 1:
            raise ValueError(
                f"Evaluation labels have shape {tuple(batch.y.shape)}; the metrics compare with class ids [B]. "
                "Yield ids in validation and test loaders."
            )
        if len(batch) and batch.y.device.type == "cpu":
            self._check_labels(batch.y, "An evaluation label")
        return batch

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Updates the ``val/`` metrics."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Logs the ``val/`` metrics."""
        self._log_metrics("val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Updates the ``test/`` metrics."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Logs the ``test/`` metrics."""
        self._log_metrics("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor | None]:
        """Probabilities ``[B, C]`` and predicted ids ``[B]``; a batch needs no labels."""
        x, index = Batch.input_of(batch)
        prob = self.probabilities(self.evaluation_logits(x).float())
        return {"prob": prob, "pred": self.predictions(prob), "index": index}

    # labels -------------------------------------------------------------------------------------------------------

    def _as_target(self, y: Tensor) -> Tensor:
        """Labels in the type that the loss reads: ids of any integer type as int64."""
        return y.long() if y.ndim == 1 and not y.is_floating_point() else y

    def _check_labels(self, y: Tensor, which: str) -> None:
        """Says what is wrong with the values of labels.

        Raises:
            ValueError: If ids are outside 0..C-1, or labels name several classes.
        """
        if y.ndim == 2:
            self._refuse_multi_hot(y, which)
        if y.ndim != 1:
            return
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"{which} is {low if low < 0 else high}, outside 0..{self.num_classes - 1} for "
                f"num_classes={self.num_classes}. Number the classes from 0, or raise num_classes."
            )

    def _refuse_multi_hot(self, y: Tensor, which: str) -> None:
        # half precision leaves soft labels with sums a little beside 1
        if y.is_floating_point() and bool(((y.float().sum(1) - 1).abs() < 0.02).all()):
            return
        raise ValueError(
            f"{which} of shape {tuple(y.shape)} is multi-hot or no distribution over the classes (the first row sums "
            f"to {float(y[0].sum()):g}), but {type(self).__name__} takes one class of each sample. Use a multi-label "
            "method, such as BinaryCrossEntropy, or yield class ids [B]."
        )
