"""The mean loss of each domain, and what it takes to minimise the mean of these."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._domains import check_domain, members, totals


def domain_means(values: Tensor, domain: Tensor) -> Tensor:
    """The means over the samples of each domain in a batch: the risks R_d where the values are losses.

    Args:
        values: [B] or [B, A].
        domain: Domain ids, [B].

    Returns:
        [K] or [K, A] for the K domains that occur, by id; float32 for half-precision values.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_domain(domain, len(values))
    values = upcast(values)
    who, sizes = members(domain, values)
    return totals(who, values) / (sizes if values.ndim == 1 else sizes.unsqueeze(1))


def domain_balance(domain: Tensor) -> Tensor:
    """Weights of samples with which the plain mean of losses becomes the mean of the domains' means, B / (K n_d).

    Args:
        domain: Domain ids, [B].

    Returns:
        [B], float32, of mean 1.

    Raises:
        ValueError: If the shape or dtype does not fit.
    """
    check_domain(domain, len(domain))
    who, sizes = members(domain, domain.float())
    return (len(domain) / (len(sizes) * sizes)) @ who
