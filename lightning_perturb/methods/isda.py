"""ISDA: the features of a class augmented along its covariance, in closed form."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.covariances import CovarianceModule
from lightning_perturb.functional import isda_perturbation


class ISDA(CovarianceModule):
    """Implicit semantic data augmentation: u_j + λ/2 (w_j - w_y)ᵀ Σ_y (w_j - w_y) [tax 33-35; lpl 5-7].

    Bounds the loss of infinitely many copies of a feature, drawn around it with the covariance Σ_y of its class. As
    published, a batch enters the statistics before its loss, λ grows with the epoch t as ``lam`` t / T from t = 0, and
    gradients flow through the classifier's weight but not through Σ. Evaluation reads the plain logits.

    Args:
        lam: λ at the end of training: 0.5 for CIFAR; 7.5 for ImageNet, with diagonal covariances.
        **kwargs: Arguments of :class:`~lightning_perturb.core.covariances.CovarianceModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "prior", "category")

    def __init__(self, *args: Any, lam: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("lam", lam, zero=True)
        self.lam = lam

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + λ R[y], at least u, and u at the given class."""
        logits = super().perturb_logits(logits, outputs, batch)
        raised = isda_perturbation(outputs["weight"], self.covariances(outputs, batch), batch.y)
        raised = self.ramped(self.lam) * raised
        batch.extra["perturbation_norm"] = raised.detach().sum(1)
        return logits + raised
