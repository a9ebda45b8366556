"""Invariant risk minimisation, alone and with an information bottleneck."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.domains import DomainPenaltyModule
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.functional import feature_variance, irm_penalty, irm_slopes


class IRM(DomainPenaltyModule):
    """One classifier that is the best in every domain: R + λ mean_d (dR_d / ds)², s a scale of the logits, at s = 1.

    This is IRMv1 (Arjovsky et al., 2019), its derivative in closed form. R_d is the cross-entropy on the given labels,
    whatever loss the method is combined with.

    Args:
        weight: λ. 100 as in DomainBed, which searches 0.1 to 1e5; the authors take 1e4 to 1e5 for coloured MNIST, with
            ``rescale``.
        anneal_steps: Steps of the optimizer with a weight of 1 (at most), DomainBed's 500. (It also starts its Adam
            anew there.)
        unbiased: Multiply slopes of different samples alone; may be negative. It is the mean over all ways to split a
            domain's samples into two halves and multiply their slopes, which the authors' code does once. False
            squares the mean slope of a domain, as the paper does.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainPenaltyModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "regularization", "corpus")

    def __init__(
        self, *args: Any, weight: float = 100.0, anneal_steps: int = 500, unbiased: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, weight=weight, anneal_steps=anneal_steps, **kwargs)
        self.unbiased = unbiased

    def penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """mean_d (dR_d / ds)²."""
        (slopes, domain), _ = gather_batch(irm_slopes(logits, batch.y), self.environment(batch))
        return irm_penalty(slopes, domain, self.unbiased)


class IBIRM(IRM, FeatureModule):
    """IRM, and γ times the variance of the deep features within domains (Ahuja et al., 2021).

    Args:
        ib_weight: γ, the weight of the variance once ``anneal_steps`` are done; before it is 0. 100 as in DomainBed,
            which searches 0.1 to 1e5 for both weights.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.IRM`, and ``classifier`` of
            :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    def __init__(self, *args: Any, ib_weight: float = 100.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("ib_weight", ib_weight, zero=True)
        self.ib_weight = ib_weight

    def weighted_penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """Both, each times its weight."""
        penalty = super().weighted_penalty(loss, logits, batch)
        if not self.annealed or not self.ib_weight:
            return penalty
        (features, domain), _ = gather_batch(batch.extra["features"], self.environment(batch))
        return penalty + self.ib_weight * feature_variance(features, domain)
