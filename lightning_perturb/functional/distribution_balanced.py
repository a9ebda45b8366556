"""Distribution-balanced loss for long-tailed multi-label data: R-BCE, negative-tolerant regularisation, and both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._counts import check_counts
from lightning_perturb.functional._multi_hot import check_multi_hot


def rebalanced_weights(
    target: Tensor, counts: Tensor, alpha: float = 0.1, beta: float = 10.0, mu: float = 0.3
) -> Tensor:
    """The weight of each entry under class-aware sampling, alpha + sigmoid(beta (r - mu)) (Wu et al., 2020).

    r_ic = (1 / n_c) / sum_j y_ij / n_j is how often sample i is drawn for class c against how often it is drawn at
    all; a sample without labels has the largest weight, 1 + alpha.

    Args:
        target: Multi-hot labels, [B, C], of any dtype.
        counts: The numbers of positive samples n_c, [C], above 0.
        alpha: The offset, at least 0.
        beta: The steepness, above 0.
        mu: The ratio with half of the weight (.3 for VOC-MLT, .2 for COCO-MLT).

    Returns:
        [B, C], in the dtype of float labels, else float32.

    Raises:
        ValueError: If a number is outside its range, a class has no samples or the shapes do not fit.
    """
    check_positive("alpha", alpha, zero=True)
    check_positive("beta", beta)
    check_counts(counts)
    if target.ndim != 2 or counts.shape != target.shape[1:]:
        raise ValueError(
            f"target of shape {tuple(target.shape)} and counts of {tuple(counts.shape)} must be [B, C] and [C]."
        )
    target = upcast(target) if target.is_floating_point() else target.float()
    rarity = 1 / counts.to(target.dtype)
    ratio = rarity / (target * rarity).sum(1, keepdim=True)
    return alpha + torch.sigmoid(beta * (ratio - mu))


def negative_tolerant_bias(counts: Tensor, total: int, kappa: float = 0.05, lam: float = 5.0) -> Tensor:
    """The logit perturbation of negative-tolerant regularisation, b_c = -kappa / lam log(N / n_c - 1) [lpl 10, 11].

    [lpl 11] has psi = kappa / lam and leaves the logarithm of the second entry out.

    Args:
        counts: The numbers of positive samples n_c, [C], above 0 and below N.
        total: N, the number of samples.
        kappa: The strength, at least 0.
        lam: The tolerance of the loss it is used with (5 for VOC-MLT, 2 for COCO-MLT), above 0.

    Returns:
        b, [C], to be added to the logits in training only.

    Raises:
        ValueError: If a number is outside its range or a class has no positive or no negative sample.
    """
    check_positive("kappa", kappa, zero=True)
    check_positive("lam", lam)
    check_counts(counts)
    full = (counts >= total).nonzero().flatten().tolist()
    if full:
        raise ValueError(f"counts reach total={total} for the classes {full}: every class needs a negative sample.")
    return -(total / counts - 1).log() * (kappa / lam)


def distribution_balanced_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    bias: Tensor | None = None,
    lam: float = 1.0,
    gamma: float = 0.0,
    focal_scale: float = 2.0,
) -> Tensor:
    """The distribution-balanced loss of each sample, the mean over classes of its entries (Wu et al., 2020).

    With z = u + b an entry is r softplus(-z) for a positive and r / lam softplus(lam z) for a negative label. The
    parts by themselves: R-BCE has weights, no bias and lam = 1; negative-tolerant regularisation [lpl 10] has a bias
    and lam above 1 without weights; with neither it is binary cross-entropy. A gamma above 0 makes any of them focal.

    Args:
        logits: u, [B, C].
        target: Multi-hot labels, [B, C], of any dtype.
        weights: r, [B, C], see ``rebalanced_weights``; none is 1.
        bias: b, [C], see ``negative_tolerant_bias``; none is 0.
        lam: The tolerance for negatives, above 0 (1 for none).
        gamma: The focus, at least 0: entries are multiplied by focal_scale (1 - p_t)^gamma, where p_t is sigmoid(z)
            or sigmoid(-lam z). The authors have 2; 0 leaves focal_scale out, too.
        focal_scale: The factor beside the focus.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If a number is outside its range or the shapes do not fit.
    """
    check_positive("lam", lam)
    check_positive("gamma", gamma, zero=True)
    check_positive("focal_scale", focal_scale)
    check_multi_hot(logits, target)
    for name, value, expected in (("weights", weights, logits.shape), ("bias", bias, logits.shape[1:])):
        if value is not None and value.shape != expected:
            raise ValueError(f"{name} of shape {tuple(value.shape)} must be {tuple(expected)} beside these logits.")
    z = upcast(logits)
    z = z if bias is None else z + bias.to(z.dtype)
    y = target.to(z.dtype)
    positive = _entry(z, gamma, focal_scale)
    negative = _entry(-lam * z, gamma, focal_scale) / lam
    entries = torch.lerp(negative, positive, y)
    return (entries if weights is None else entries * weights.to(z.dtype)).mean(1)


def _entry(agreeing: Tensor, gamma: float, focal_scale: float) -> Tensor:
    """softplus(-a), made focal where gamma is above 0; 1 - sigmoid(a) = sigmoid(-a), whose logarithm is exact."""
    entry = -F.logsigmoid(agreeing)
    return entry * focal_scale * torch.exp(gamma * F.logsigmoid(-agreeing)) if gamma else entry
