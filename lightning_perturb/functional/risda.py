"""RISDA: what rare classes lack is taken over from the classes that they are mistaken for (Chen et al., 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.functional._arguments import check_ids, upcast
from lightning_perturb.functional._classes import present_classes
from lightning_perturb.functional._precision import full_precision


def confusion_counts(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """How often each class is given and each one predicted; counts of several batches and ranks add up.

    Args:
        predicted: Predicted ids, [B] (int64).
        target: Given ids, [B] (int64).
        num_classes: C.

    Returns:
        [C, C], int64: rows are given, columns predicted classes.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(target)
    check_ids(predicted, len(target))
    return torch.bincount(target * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def confusion_rates(counts: Tensor) -> Tensor:
    """G: the share of each class's samples that each class is predicted for.

    Args:
        counts: Of ``confusion_counts``, [C, C].

    Returns:
        [C, C], float32, rows sum to 1; a class without samples is taken for itself.
    """
    total = counts.sum(1, keepdim=True)
    own = torch.eye(len(counts), device=counts.device)
    return torch.where(total > 0, counts / total.clamp(min=1), own)


def reasoned_covariance(covariance: Tensor, confusion: Tensor, tail: Tensor) -> Tensor:
    """The covariances after reasoning: sum_j G[k, j] Sigma_j for the tail, Sigma_k for the head.

    Args:
        covariance: Sigma, [C, A, A], or variances, [C, A].
        confusion: G, [C, C].
        tail: Which classes are tail, [C] (bool).

    Returns:
        As the covariance.

    Raises:
        ValueError: If the shapes do not fit.
    """
    classes = len(covariance)
    if confusion.shape != (classes, classes) or tail.shape != (classes,):
        raise ValueError(
            f"confusion of shape {tuple(confusion.shape)} and tail of {tuple(tail.shape)} do not go with the "
            f"covariances of {classes} classes. Give [{classes}, {classes}] and [{classes}]."
        )
    with full_precision(covariance):
        mixed = confusion[tail].to(covariance.dtype) @ covariance.flatten(1)
    reasoned = covariance.clone()
    reasoned[tail] = mixed.view(-1, *covariance.shape[1:])
    return reasoned


def risda_mean_term(weight: Tensor, shift: Tensor, target: Tensor) -> Tensor:
    """(w_j - w_y) . d_y: how logits move when features of class y move by d_y = sum_j G[y, j] mu_j - mu_y.

    Args:
        weight: The classifier's weight W, [C, A]; gradients flow into it, as in the published code.
        shift: d, [C, A].
        target: Class ids y, [B] (int64).

    Returns:
        [B, C], 0 at the given class; float32 for half-precision weights.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(target)
    if weight.ndim != 2 or weight.shape != shift.shape:
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} and shift of {tuple(shift.shape)} must both be [C, A]."
        )
    present, place, _ = present_classes(target)
    with full_precision(weight):
        weight = upcast(weight)
        moved = shift[present].to(weight.dtype) @ weight.t()
        return (moved - moved.gather(1, present.unsqueeze(1)))[place]


def class_sums(features: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """The sum of the features of each class; sums of several batches and ranks add up.

    Args:
        features: h, [B, A].
        target: Class ids, [B] (int64).
        num_classes: C.

    Returns:
        [C, A], in the features' dtype, float32 for half precision.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(target, len(features))
    with full_precision(features):
        features = upcast(features)
        # a product with the indicator of the classes sums in the same order in every run
        return F.one_hot(target, num_classes).to(features.dtype).t() @ features
