"""Center loss."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.functional import center_loss, update_centers


class CenterLoss(FeatureModule):
    """Cross-entropy and half the squared distance of each feature from the centre of its class (Wen et al., 2016).

    The centres start at 0 and move after every batch by the mean difference of its samples, of all devices, damped by
    1 / (1 + n). (A published implementation learns them by SGD instead.)

    Args:
        weight: Weight of the distances.
        center_rate: How far the centres move, from 0 to 1.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "regularization", "category")

    centers: Tensor

    def __init__(self, *args: Any, weight: float = 0.003, center_rate: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("weight", weight, zero=True)
        check_rate("center_rate", center_rate)
        self.weight = weight
        self.center_rate = center_rate
        self.add_state("centers", torch.zeros(self.num_classes, self.num_features))

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + weight / 2 ||h - c_y||²."""
        loss = super().perturb_loss(loss, logits, batch)
        return loss + self.weight * center_loss(batch.extra["features"], batch.y, self.centers)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Moves the centres."""
        super().update_state(outputs, batch)
        if self.phase == "warmup":
            return
        features, y = gather_rows(outputs["features"].detach().to(self.centers.dtype), batch.y)
        self.centers.copy_(update_centers(self.centers, features, y, self.center_rate))
