"""CORAL: features of all domains with the same mean and covariance (Sun and Saenko, 2016)."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._domains import repeated
from lightning_perturb.functional._precision import full_precision


def coral_penalty(features: Tensor, domain: Tensor, means: bool = True) -> Tensor:
    """The mean over pairs of domains of the squared difference of their features' covariances, and of their means.

    Squares are averaged over the entries, A of a mean and A^2 of a covariance (with n - 1 below), as is usual for
    several domains. Deep CORAL has two domains, a quarter of the covariances' part, and no means.

    Args:
        features: h, [B, A].
        domain: Domain ids, [B]; one with a single sample in the batch has no covariance and is left out.
        means: Add the means' part.

    Returns:
        A number, 0 where fewer than two domains are left; float32 for half-precision features.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    features, place, who, sizes = repeated(upcast(features), domain)
    with full_precision(features):
        mean = who @ features / sizes.unsqueeze(1)
        centred = features - mean[place]
        covariance = (who.unsqueeze(2) * centred).transpose(1, 2) @ centred / (sizes - 1).view(-1, 1, 1)
    penalty = _pairwise(covariance)
    return penalty + _pairwise(mean) if means else penalty


def _pairwise(values: Tensor) -> Tensor:
    """The mean over pairs of rows of the mean squared difference of their entries."""
    # without a loop over pairs: it is twice the variance with K - 1 below
    spread = (values - values.mean(0)).square().flatten(1).mean(1).sum()
    return 2 * spread / max(len(values) - 1, 1)
