"""IRMv1: how far a scale of the logits is from its best value in each domain (Arjovsky et al., 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import check_logits, check_target, upcast
from lightning_perturb.functional._domains import check_domain, members, totals
from lightning_perturb.functional.cross_entropy import one_hot


def irm_slopes(logits: Tensor, target: Tensor) -> Tensor:
    """The derivative of each sample's cross-entropy in a scale s of the logits, at s = 1.

    In closed form, sum_c (p_c - y_c) u_c, so that a penalty on it is differentiated once, as any loss.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].

    Returns:
        [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_target(target, *logits.shape)
    logits = upcast(logits)
    label = one_hot(target, logits.shape[1], logits.dtype) if target.ndim == 1 else target.to(logits.dtype)
    return ((torch.softmax(logits, 1) - label) * logits).sum(1)


def irm_penalty(slopes: Tensor, domain: Tensor, unbiased: bool = False) -> Tensor:
    """The mean over domains of the squared slope of the domain's risk.

    The square of a mean over few samples is too large in expectation, by the variance of that mean. The authors then
    multiply the means of two halves of the batch; here it is the mean over all such halves, that is of s_i s_j over
    pairs of different samples of the domain.

    Args:
        slopes: Of ``irm_slopes``, [B].
        domain: Domain ids, [B].
        unbiased: Leave out s_i s_i. A domain with a single sample in the batch then counts 0.

    Returns:
        A number, at least 0 unless it is unbiased; float32 for half-precision slopes.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_domain(domain, len(slopes))
    slopes = upcast(slopes)
    who, sizes = members(domain, slopes)
    total = totals(who, slopes)
    if not unbiased:
        return (total / sizes).square().mean()
    pairs = (total.square() - totals(who, slopes.square())) / (sizes * (sizes - 1)).clamp(min=1)
    return torch.where(sizes > 1, pairs, 0.0).mean()
