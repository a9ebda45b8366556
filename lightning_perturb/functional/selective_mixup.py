"""Who may be mixed with whom: LISA (Yao et al., 2022) and mixup between domains (Xu et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def same_label_other_domain(label: Tensor, domain: Tensor) -> Tensor:
    """Pairs of intra-label LISA: two samples of one class in different domains.

    Args:
        label: Class ids, [B].
        domain: Domain ids, [B].

    Returns:
        [B, B] in bool, symmetric.
    """
    return _equal(label) & ~_equal(domain)


def same_domain_other_label(label: Tensor, domain: Tensor) -> Tensor:
    """Pairs of intra-domain LISA: two samples of one domain with different classes.

    Args:
        label: Class ids, [B].
        domain: Domain ids, [B].

    Returns:
        [B, B] in bool, symmetric.
    """
    return _equal(domain) & ~_equal(label)


def other_domain(domain: Tensor) -> Tensor:
    """Pairs of samples in different domains, whatever their classes.

    Args:
        domain: Domain ids, [B].

    Returns:
        [B, B] in bool, symmetric.
    """
    return ~_equal(domain)


def choose_partners(allowed: Tensor, draw: Tensor) -> Tensor:
    """A partner for each sample, any of those that it may be mixed with alike likely.

    Args:
        allowed: Which samples j may be mixed with i, [B, B] in bool.
        draw: Uniform numbers in [0, 1), [B].

    Returns:
        Places of the partners, [B] (int64); a sample with none has its own.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if draw.ndim != 1 or allowed.shape != (len(draw), len(draw)):
        raise ValueError(
            f"allowed of shape {tuple(allowed.shape)} and draw of {tuple(draw.shape)} must be [B, B] and [B]."
        )
    own = torch.arange(len(draw), device=draw.device)
    if not len(draw):
        return own
    count = allowed.sum(1)
    # the number of the chosen one among the allowed; rounding must not go beyond the last
    chosen = torch.minimum((draw.double() * count).long(), count - 1)
    found = allowed & (allowed.long().cumsum(1) == chosen.unsqueeze(1) + 1)
    return torch.where(count > 0, found.long().argmax(1), own)


def _equal(ids: Tensor) -> Tensor:
    return ids.unsqueeze(0) == ids.unsqueeze(1)
