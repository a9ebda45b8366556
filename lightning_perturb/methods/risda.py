"""RISDA: implicit augmentation of rare classes by what the classes that they are mistaken for look like."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, Needs
from lightning_perturb.core.distributed import sum_over_ranks
from lightning_perturb.core.scores import visit_training
from lightning_perturb.functional import (
    class_sums,
    confusion_counts,
    confusion_rates,
    frequency_split,
    reasoned_covariance,
    risda_mean_term,
)
from lightning_perturb.functional.isda import ClassCovariance
from lightning_perturb.methods.class_weights import ClassBalanced
from lightning_perturb.methods.isda import ISDA
from lightning_perturb.methods.lpl import count_head


class RISDA(ISDA, ClassBalanced):
    """Reasoning-based implicit semantic data augmentation for long tails (Chen et al., 2022) [iada Tables 2-4].

    u_j + α (w_j - w_y)·(Σ_k G_yk μ_k - μ_y) + λ/2 (w_j - w_y)ᵀ Σ_y (w_j - w_y), where G says how often each class is
    predicted for samples of each class, μ are the means of their features, and the covariance of a tail class is that
    of the classes it is predicted as, Σ_k G_yk Σ_k. After ``warmup_epochs`` of plain cross-entropy (160 of 200 for
    CIFAR-LT) one pass over the training set, in evaluation mode, gives G and μ. (The authors take G from the epoch
    before that had the highest training accuracy, rounded to two digits.) From then on α and λ grow as in ISDA, over
    all epochs, and losses are weighted by class (effective number of samples, normalised by the sum of the weights in
    the batch).

    Args:
        alpha: α at the end of training; 0.5 for CIFAR-100-LT.
        lam: λ at the end of training, β in the paper; 0.75 for CIFAR-100-LT at 100:1, 1 at 200:1.
        head: How many of the most frequent classes keep their own covariance, a share (below 1) or a count; 20 of 100
            by default in the published code.
        transfer: ``stored``: the mixed covariances of the tail take the place of its statistics in every batch, so that
            mixtures are mixed again (published code). ``fresh``: they are mixed anew from the statistics, as the
            formula reads.
        normalise: As of :class:`~lightning_perturb.methods.ReWeighting`.
        **kwargs: Arguments of :class:`~lightning_perturb.core.covariances.CovarianceModule` and
            :class:`~lightning_perturb.methods.ClassBalanced`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), "prior", "category")
    needs = Needs(scores=True)

    confusion: Tensor
    mean_shift: Tensor
    tail: Tensor
    reasoned: Tensor

    def __init__(
        self,
        *args: Any,
        alpha: float = 0.5,
        lam: float = 0.75,
        head: float = 0.2,
        transfer: Literal["stored", "fresh"] = "stored",
        normalise: Literal["none", "batch"] = "batch",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lam=lam, normalise=normalise, **kwargs)
        check_positive("alpha", alpha, zero=True)
        check_choice("transfer", transfer, ("stored", "fresh"))
        self.alpha = alpha
        self.head_classes = count_head(head, self.num_classes)
        self.transfer = transfer
        self.add_state("confusion", torch.eye(self.num_classes))
        self.add_state("mean_shift", torch.zeros(self.num_classes, self.num_features))
        self.add_state("reasoned", torch.tensor(False))
        self.add_state("tail", torch.zeros(self.num_classes, dtype=torch.bool), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The weights, and which classes are tail."""
        super().use_counts(counts)
        self.tail.copy_(frequency_split(counts, self.head_classes) > 0)

    def start_epoch(self) -> None:
        """Takes G and the means from the training set, in the first epoch after warm-up."""
        super().start_epoch()
        if self.phase == "warmup" or bool(self.reasoned):
            return
        counts = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=self.device)
        sums = torch.zeros_like(self.mean_shift)

        def visit(batch: Batch) -> None:
            found = self.outputs(self.net, batch)
            counts.add_(confusion_counts(found["logits"].argmax(1), batch.y, self.num_classes))
            sums.add_(class_sums(found["features"], batch.y, self.num_classes))

        visit_training(self, visit)
        counts, sums = sum_over_ranks(counts), sum_over_ranks(sums)
        means = sums / counts.sum(1, keepdim=True).clamp(min=1)
        self.confusion.copy_(confusion_rates(counts))
        with torch.autocast(self.device.type, enabled=False):
            self.mean_shift.copy_(self.confusion @ means - means)
        self.reasoned.fill_(True)

    def settled(self, found: ClassCovariance) -> ClassCovariance:
        """As in the base; with ``transfer="stored"`` the tail's covariances are mixed."""
        found = super().settled(found)
        if self.transfer == "fresh":
            return found
        return found._replace(covariance=reasoned_covariance(found.covariance, self.confusion, self.tail))

    def covariances(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Σ, mixed for the tail."""
        covariance = super().covariances(outputs, batch)
        return covariance if self.transfer == "stored" else reasoned_covariance(covariance, self.confusion, self.tail)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + α (w_j - w_y)·d_y + λ R[y]."""
        moved = super().perturb_logits(logits, outputs, batch)
        moved = moved + self.ramped(self.alpha) * risda_mean_term(outputs["weight"], self.mean_shift, batch.y)
        batch.extra["perturbation_norm"] = (moved - logits).detach().abs().sum(1)
        return moved
