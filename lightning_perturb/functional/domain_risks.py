"""The mean loss of each domain, and what it takes to minimise the mean of these."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._classes import present_classes
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


def domain_balance(domain: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights of samples with which the plain mean of losses becomes the mean of the domains' means, B / (K n_d).

    Args:
        domain: Domain ids, [B].
        dtype: The dtype of the result.

    Returns:
        [B], of mean 1.

    Raises:
        ValueError: If the shape or dtype does not fit.
    """
    check_domain(domain, len(domain))
    present, place, sizes = present_classes(domain)
    return (len(domain) / (len(present) * sizes.to(dtype)))[place]
