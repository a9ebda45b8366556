"""ISDA: running class covariances of the features, and the logit perturbation that they imply [lpl 5-7]."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._classes import present_classes
from lightning_perturb.functional._precision import full_precision


class BatchStatistics(NamedTuple):
    """Sums over one batch by class; sums over ranks are again the sums of the joint batch.

    Attributes:
        samples: The number of samples, [C].
        total: The sum of the features' differences from a centre, [C, A].
        square: The sum of their outer products, [C, A, A], or of their squares, [C, A].
    """

    samples: Tensor
    total: Tensor
    square: Tensor


class ClassCovariance(NamedTuple):
    """What is known of the features by class.

    Attributes:
        samples: The number of samples seen, [C].
        mean: Their mean, [C, A]; 0 for a class without samples.
        covariance: Their population covariance, [C, A, A], or variance, [C, A]; 0 for a class without samples.
    """

    samples: Tensor
    mean: Tensor
    covariance: Tensor


def batch_statistics(features: Tensor, labels: Tensor, centre: Tensor, diagonal: bool = False) -> BatchStatistics:
    """One batch's part of the running class covariances.

    Sum the result over ranks where there are several (all ranks hold the same centre), then ``pool`` it.

    Args:
        features: What enters the classifier, [B, A]; taken as constants.
        labels: Class ids, [B] (int64).
        centre: The point from which to sum by class, [C, A]: the running mean, so that no digits are lost when the
            mean is large beside the spread.
        diagonal: Whether to keep variances only.

    Returns:
        The sums, in the dtype of the centre.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(labels)
    if features.ndim != 2 or centre.ndim != 2 or features.shape != (len(labels), centre.shape[1]):
        raise ValueError(
            f"features of shape {tuple(features.shape)}, labels of {tuple(labels.shape)} and centre of "
            f"{tuple(centre.shape)} must be [B, A], [B] and [C, A]."
        )
    classes, width = centre.shape
    with torch.no_grad(), full_precision(features):
        samples, total = centre.new_zeros(classes), torch.zeros_like(centre)
        square = centre.new_zeros((classes, width) if diagonal else (classes, width, width))
        if not len(labels):
            return BatchStatistics(samples, total, square)
        present, sizes, grouped = _grouped(features.to(centre.dtype) - centre[labels], labels)
        samples = samples.index_copy(0, present, sizes.to(centre.dtype))
        total = total.index_copy(0, present, grouped.sum(1))
        part = grouped.square().sum(1) if diagonal else grouped.mT @ grouped
        return BatchStatistics(samples, total, square.index_copy(0, present, part))


def pool(state: ClassCovariance, batch: BatchStatistics) -> ClassCovariance:
    """The class covariances of all samples so far: exactly those of the joined samples, none fading.

    Args:
        state: What is known so far.
        batch: The sums of new samples about ``state.mean``, from ``batch_statistics``.

    Returns:
        A new state; classes without new samples are unchanged.
    """
    samples = state.samples + batch.samples.to(state.samples.dtype)
    seen = samples.clamp(min=1).to(state.mean.dtype)
    inverse, kept = 1 / seen, state.samples.to(state.mean.dtype) / seen
    shift = batch.total * inverse.unsqueeze(1)
    full = state.covariance.ndim == 3
    between = shift.unsqueeze(2) * shift.unsqueeze(1) if full else shift.square()
    within = state.covariance * _by_class(kept, state.covariance) + batch.square * _by_class(inverse, batch.square)
    return ClassCovariance(samples, state.mean + shift, within - between)


def class_covariance_update(
    samples: Tensor, mean: Tensor, covariance: Tensor, features: Tensor, labels: Tensor
) -> ClassCovariance:
    """One update of the running class covariances on one process: ``pool`` after ``batch_statistics``.

    Args:
        samples: The number of samples seen, [C].
        mean: Their mean, [C, A].
        covariance: Their population covariance, [C, A, A], or variance, [C, A].
        features: What enters the classifier, [B, A]; taken as constants.
        labels: Class ids, [B] (int64).

    Returns:
        The new samples, mean and covariance.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    state = ClassCovariance(samples, mean, covariance)
    return pool(state, batch_statistics(features, labels, mean, diagonal=covariance.ndim == 2))


def isda_term(weight: Tensor, covariance: Tensor, labels_present: Tensor) -> Tensor:
    """R[k, j] = 1/2 (w_j - w_k)^T Sigma_k (w_j - w_k), the part of [lpl 7] that depends on the classes only.

    Only for the classes asked for: the cost is O(K C A^2), or O(K C A) with variances, whatever the batch size.
    Gradients flow into the weight and the covariance.

    Args:
        weight: The classifier's weight W, [C, A].
        covariance: Sigma, symmetric [C, A, A], or variances, [C, A].
        labels_present: The ids k of the K classes to compute rows for, [K] (int64).

    Returns:
        R, [K, C], 0 at j = k; float32 for half-precision weights.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(labels_present)
    if weight.ndim != 2 or covariance.shape not in (weight.shape, (*weight.shape, weight.shape[1])):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} and covariance of {tuple(covariance.shape)} must be [C, A] and "
            "[C, A, A], or [C, A] for variances."
        )
    with full_precision(weight):
        weight = upcast(weight)
        if covariance.ndim == 3:
            rows: Tensor = _QuadraticForm.apply(weight, covariance, labels_present)
            return rows
        sigma = covariance[labels_present].to(weight.dtype)
        # with variances the square is expanded, which needs no [K, C, A]; a common shift of the weights changes
        # nothing but keeps the terms, which cancel, small
        weight = weight - weight.detach().mean(0)
        own = weight[labels_present]
        crossed = (sigma * own) @ weight.t()
        rows = 0.5 * (sigma @ weight.square().t()) - crossed + 0.5 * (sigma * own.square()).sum(1, keepdim=True)
        return rows.scatter(1, labels_present.unsqueeze(1), 0.0)


def isda_perturbation(weight: Tensor, covariance: Tensor, target: Tensor) -> Tensor:
    """R[y_i, j] of each sample: ISDA's perturbation of its logits at strength 1 [lpl 7].

    Args:
        weight: The classifier's weight W, [C, A].
        covariance: Sigma, [C, A, A], or variances, [C, A].
        target: Class ids, [B] (int64).

    Returns:
        [B, C], at least 0, and 0 at the given class; see ``isda_term``.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(target)
    present, place, _ = present_classes(target)
    return isda_term(weight, covariance, present)[place]


def isda_logits(
    logits: Tensor, weight: Tensor, covariance: Tensor, target: Tensor, lam: float | Tensor = 0.5
) -> Tensor:
    """The logits under ISDA, u_j + lam / 2 (w_j - w_y)^T Sigma_y (w_j - w_y) [lpl 6, 7].

    The authors let lam grow with the epoch t as lam_0 t / T, with lam_0 = .5 for CIFAR and 7.5 for ImageNet.

    Args:
        logits: u, [B, C].
        weight: The classifier's weight, [C, A]; gradients flow into it, as in the published code.
        covariance: Sigma, [C, A, A], or variances, [C, A].
        target: Class ids, [B] (int64).
        lam: The strength, at least 0: a number or a scalar tensor, whose value is not checked.

    Returns:
        The perturbed logits, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If lam is negative or the shapes or dtypes do not fit.
    """
    if not isinstance(lam, Tensor):
        check_positive("lam", lam, zero=True)
    check_logits(logits)
    check_ids(target, logits.shape[0])
    return upcast(logits) + lam * isda_perturbation(weight, covariance, target)


# classes whose covariances are read at a time: no copy of all of them is made
_AT_A_TIME = 4


class _QuadraticForm(torch.autograd.Function):
    """1/2 (w_j - w_k)^T Sigma_k (w_j - w_k) for all j and some k, [K, C].

    The gradient of a symmetric form in w_j - w_k is Sigma_k (w_j - w_k), a factor of the value. Autograd would make the
    same product a second time, and keep the differences and a copy of the covariances for it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, covariance: Tensor, present: Tensor) -> Tensor:
        rows = weight.new_empty(len(present), len(weight))
        kept = weight.new_empty(len(present) * ctx.needs_input_grad[0], *weight.shape)
        for start in range(0, len(present), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            difference = weight - weight[present[part]].unsqueeze(1)
            moved = torch.bmm(difference, covariance[present[part]].to(weight.dtype))
            rows[part] = (moved * difference).sum(2).mul_(0.5)
            if len(kept):
                kept[part] = moved
        # running covariances move on before the backward pass, which reads none unless they are learned
        learned = ctx.needs_input_grad[1]
        ctx.save_for_backward(weight, covariance if learned else None, present, kept)
        ctx.constant = None if learned else (covariance, covariance._version)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, covariance, present, moved = ctx.saved_tensors
        with full_precision(gradient):
            difference = weight - weight[present].unsqueeze(1) if ctx.needs_input_grad[1] else None
            if torch.is_grad_enabled():
                # a second derivative is asked for: what was kept knows nothing of where it came from
                if covariance is None:
                    covariance, version = ctx.constant
                    if covariance._version != version:
                        raise RuntimeError("The covariance was changed in place before a second derivative was taken.")
                difference = weight - weight[present].unsqueeze(1)
                sigma = covariance[present].to(weight.dtype)
                moved = difference @ (0.5 * (sigma + sigma.mT))
            in_weight = in_covariance = None
            if ctx.needs_input_grad[0]:
                by_class = torch.bmm(gradient.t().unsqueeze(1), moved.transpose(0, 1)).squeeze(1)
                by_label = torch.bmm(gradient.unsqueeze(1), moved).squeeze(1)
                in_weight = by_class.index_add(0, present, by_label, alpha=-1)
            if difference is not None and ctx.needs_input_grad[1]:
                part = 0.5 * (gradient.unsqueeze(2) * difference).mT @ difference
                zeros = torch.zeros_like(covariance, dtype=part.dtype)
                in_covariance = zeros.index_copy(0, present, part).to(covariance.dtype)
            return in_weight, in_covariance, None


def _grouped(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The classes present [K], their sizes [K], and their rows, padded with zeros to [K, largest, A].

    One matrix product per class replaces a product per sample, and sums come out the same in every run.
    """
    present, place, sizes = present_classes(labels)
    order = torch.argsort(labels, stable=True)
    group = place[order]
    slot = torch.arange(len(labels), device=rows.device) - (sizes.cumsum(0) - sizes)[group]
    padded = rows.new_zeros(len(present), int(sizes.max()), rows.shape[1])
    return present, sizes, padded.index_put((group, slot), rows[order])


def _by_class(values: Tensor, like: Tensor) -> Tensor:
    """Values [C] shaped so that they scale the entries of a [C, ...] tensor."""
    return values.view(-1, *[1] * (like.ndim - 1))
