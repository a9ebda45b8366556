"""The focal loss of several labels at once, by itself and class-balanced."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range, check_rate
from lightning_perturb.core import Batch, Coordinates, CountedModule, MultiLabelModule
from lightning_perturb.functional import binary_focal_entries, effective_number_weights


class MultiLabelFocal(MultiLabelModule):
    """Focal loss of each label: less weight for labels that are learnt, (1 - p_t)^gamma.

    Args:
        gamma: The focus; 2, as published; 0 is binary cross-entropy times ``focal_scale``.
        positive_weight: Weight of positives, alpha of the focal loss, negatives having 1 - alpha (0.25 in detection);
            None weights neither.
        focal_scale: Factor of the loss; 2 in the comparison on VOC-MLT and COCO-MLT, 1 in detection.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "sample")

    def __init__(
        self,
        *args: Any,
        gamma: float = 2.0,
        positive_weight: float | None = None,
        focal_scale: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("gamma", gamma, zero=True)
        if positive_weight is not None:
            check_rate("positive_weight", positive_weight)
        check_positive("focal_scale", focal_scale)
        self.gamma = gamma
        self.positive_weight = positive_weight
        self.focal_scale = focal_scale

    def entry_losses(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Focal losses ``[B, C]``."""
        return self.focal_scale * binary_focal_entries(logits, target, self.gamma, self.positive_weight)


class MultiLabelCBFocal(CountedModule, MultiLabelFocal):
    """Class-balanced focal loss of several labels: a sample has the mean weight of its classes.

    The weight of a class is (1 - beta) / (1 - beta^n_c), scaled so that the weights sum to the number of classes. A
    sample without labels has the mean weight of all classes, 1.

    Args:
        beta: From 0 (no weighting) towards 1 (inverse frequency); 0.9 in the comparison on VOC-MLT and COCO-MLT.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.methods.MultiLabelFocal`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), ("prior", "hyperparameter"), ("sample", "category"))

    class_weights: Tensor

    def __init__(self, *args: Any, beta: float = 0.9, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.beta = beta
        self.add_state("class_weights", torch.ones(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The weight of each class."""
        super().use_counts(counts)
        self.class_weights.copy_(effective_number_weights(counts, self.beta))

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w l, with the mean weight w of the sample's classes."""
        y = batch.y.to(loss.dtype)
        labels = y.sum(1)
        weights = (y @ self.class_weights.to(loss.dtype)) / labels.clamp(min=1)
        return super().perturb_loss(loss, logits, batch) * torch.where(labels > 0, weights, 1.0)
