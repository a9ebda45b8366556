"""LC: logit compensation, by itself and over R-BCE."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, MultiLabelModule
from lightning_perturb.methods.distribution_balanced import RBCE, RBCEFocal

# softplus of it is 1
_UNIT = 0.5413248546129181


class LC(MultiLabelModule):
    """Logit compensation: a learned scale and shift of each class's logit, for positives and for negatives [lpl 12-14].

    The logit of a positive label becomes sigma^p u + mu^p, that of a negative sigma^n u + mu^n, in training only. The
    scales, softplus of a parameter, begin at 1 and the shifts at 0; the paper does not say. They are trained with the
    network, without weight decay. Nothing in the loss holds the shifts back: the further apart they are, the lower it
    is, whatever the network says. So they must move slowly: a rate of 0.02 for 8 epochs, as published, does no harm,
    a rate of 1 for 30 epochs learns nothing else.

    Args:
        compensation_rate: Learning rate of scales and shifts over that of the network.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "regularization", "corpus")

    def __init__(self, *args: Any, compensation_rate: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("compensation_rate", compensation_rate, zero=True)
        self.compensation_rate = compensation_rate
        self.label_scale = nn.Parameter(torch.full((2, self.num_classes), _UNIT))
        self.label_shift = nn.Parameter(torch.zeros(2, self.num_classes))

    def trained_parameters(self) -> list[dict[str, Any]]:
        """The network's, and those of the compensation with a rate of their own and no weight decay."""
        own = [self.label_scale, self.label_shift]
        rest = [p for p in super().trained_parameters() if not any(p is mine for mine in own)]
        return [{"params": rest}, {"params": own, "weight_decay": 0.0, "lr_factor": self.compensation_rate}]

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """sigma u + mu, by whether the label is given."""
        u = super().perturb_logits(logits, outputs, batch)
        negative, positive = (F.softplus(self.label_scale) * u.unsqueeze(1) + self.label_shift).unbind(1)
        return torch.where(batch.y == 1, positive, negative)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """As in the base."""
        loss = super().loss(outputs, batch)
        # data-parallel training wants a gradient of every parameter, also where warm-up uses none of these
        return loss + 0.0 * (self.label_scale.sum() + self.label_shift.sum()) if self.phase == "warmup" else loss


class RBCELC(LC, RBCE):
    """R-BCE over compensated logits.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LC` and :class:`~lightning_perturb.methods.RBCE`.
    """


class RBCEFocalLC(LC, RBCEFocal):
    """R-BCE-Focal over compensated logits.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LC` and :class:`~lightning_perturb.methods.RBCEFocal`.
    """
