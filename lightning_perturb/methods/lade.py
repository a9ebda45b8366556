"""LADE: balanced softmax, and a term that keeps the label distribution out of the logits."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.functional import lade_regularization
from lightning_perturb.methods.logit_adjustment import LogitAdjustment


class LADE(LogitAdjustment):
    """Label distribution disentangling (Hong et al., 2021) [iada Tables 2, 3].

    Cross-entropy on u + τ log π, and α times one number of the batch, Σ_c π_c (s_c - m_c + λ s_c²) with m_c the mean of
    u_c over the samples of class c and s_c = log (1/N Σ_i e^{u_ic}) - log (C π_c). All devices' samples are the batch.
    Evaluation reads the plain logits, for balanced classes.

    Args:
        alpha: α: 0.1 for CIFAR-100-LT, 0.05 for ImageNet-LT and iNaturalist 2018; 0 is logit adjustment.
        lam: λ, weight of the squares: 0.01 for CIFAR-100-LT at 100:1, 0.5 for ImageNet-LT and iNaturalist 2018.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LogitAdjustment`, whose ``tau`` the paper leaves at 1.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), ("prior", "regularization"), "corpus")

    def __init__(self, *args: Any, alpha: float = 0.1, lam: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("alpha", alpha, zero=True)
        check_positive("lam", lam, zero=True)
        self.alpha = alpha
        self.lam = lam

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l plus the batch's number, the same for all samples."""
        loss = super().perturb_loss(loss, logits, batch)
        (everyone, labels), _ = gather_batch(logits, batch.y)
        return loss + self.alpha * lade_regularization(everyone, labels, self.log_prior, self.lam)
