"""CORAL: deep features that are alike in all domains."""

from typing import Any

from torch import Tensor

from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.domains import DomainPenaltyModule
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.functional import coral_penalty


class CORAL(DomainPenaltyModule, FeatureModule):
    """The mean risk and how far the domains' features differ in covariance and mean (Sun and Saenko, 2016).

    The penalty is the mean over pairs of domains of the mean squared difference of the entries, as DomainBed and WILDS
    have it.

    Args:
        means: Compare the means, too. Deep CORAL for two domains compares covariances alone, with a quarter of the
            weight.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainPenaltyModule`, whose weight of 1 is
            DomainBed's, and ``classifier`` of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "regularization", "corpus")

    def __init__(self, *args: Any, means: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.means = means

    def penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """Mean squared differences of covariances, and of means."""
        (features, domain), _ = gather_batch(batch.extra["features"], self.environment(batch))
        return coral_penalty(features, domain, self.means)
