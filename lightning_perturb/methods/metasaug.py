"""MetaSAug: ISDA whose covariances are corrected on clean, balanced samples, for long tails."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.covariances import MetaCovarianceModule
from lightning_perturb.core.distributed import mean_over_ranks
from lightning_perturb.functional import effective_number_weights, ldam_logits, ldam_margins
from lightning_perturb.methods.isda import ISDA


class MetaSAug(MetaCovarianceModule, ISDA, CountedModule):
    """Meta semantic augmentation: ISDA with covariances that lower the loss on balanced samples [tax 36].

    As in the published code: after ``warmup_epochs`` of plain cross-entropy (160 of 200 for CIFAR-LT) the loss is
    weighted by class (effective number of samples, normalised by the sum of the weights in the batch), the LDAM margin
    is taken off the given class after the covariance term and without scale, and λ grows as in ISDA, over all epochs.
    The covariances start from nothing there. In every batch Σ takes one step along the gradient of the meta loss
    through the virtual step; that correction holds for the batch alone.

    Args:
        margin: LDAM margin of the rarest class; 0 for none.
        beta: β of the effective number of samples, in [0, 1); 0 weights all classes alike.
        **kwargs: Arguments of :class:`~lightning_perturb.core.covariances.MetaCovarianceModule`, of
            :class:`~lightning_perturb.methods.ISDA`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "meta", "category")

    def __init__(self, *args: Any, margin: float = 0.5, beta: float = 0.9999, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("margin", margin, zero=True)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.margin = margin
        self.beta = beta

    @property
    def needs_class_counts(self) -> bool:
        """For the margins and the weights."""
        return self.margin > 0 or self.beta > 0

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + λ R[y] - m_y e_y."""
        logits = super().perturb_logits(logits, outputs, batch)
        if not self.margin:
            return logits
        margins = ldam_margins(self.class_counts.to(self.dtype), self.margin)
        return ldam_logits(logits, batch.y, margins, scale=1.0)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w_y l over the mean weight of the batch, of all ranks."""
        loss = super().perturb_loss(loss, logits, batch)
        if not self.beta:
            return loss
        weights = effective_number_weights(self.class_counts.to(self.dtype), self.beta)[batch.y]
        return loss * weights / mean_over_ranks(weights.mean())
