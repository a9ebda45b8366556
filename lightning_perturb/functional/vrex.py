"""V-REx: the variance of the domains' risks (Krueger et al., 2021)."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional.domain_risks import domain_means


def vrex_penalty(losses: Tensor, domain: Tensor) -> Tensor:
    """The variance of the mean losses of the domains in a batch, over K domains divided by K.

    Args:
        losses: Of each sample, [B].
        domain: Domain ids, [B].

    Returns:
        A number, 0 for a single domain; float32 for half-precision losses.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    return domain_means(losses, domain).var(correction=0)
