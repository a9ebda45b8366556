"""Forward correction: a loss on the noisy label's probability, through the noise transition matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_range
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast


def forward_corrected_loss(logits: Tensor, target: Tensor, T: Tensor) -> Tensor:
    """The forward-corrected loss -log sum_k p_k T[k, y] (Patrini et al., 2017), the baseline Forward of [narl].

    Args:
        logits: u, [B, C].
        target: The noisy class ids, [B] (int64).
        T: The transition matrix, T[k, y] = P(given label y | true class k), [C, C]; its values are not checked. The
            identity gives cross-entropy. A given label that no class can turn into has an infinite loss.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    classes = logits.shape[1]
    if T.shape != (classes, classes):
        raise ValueError(
            f"T has the shape {tuple(T.shape)} beside logits of {tuple(logits.shape)}. Give the [{classes}, {classes}] "
            "matrix of transitions from true (rows) to given labels (columns)."
        )
    log_prob = torch.log_softmax(upcast(logits), 1)
    possible = T > 0
    log_T = torch.where(possible, torch.where(possible, T, 1.0).to(log_prob.dtype).log(), -torch.inf)
    return -(log_prob + log_T.t()[target]).logsumexp(1)


def estimate_transition(probabilities: Tensor, filter_top: float = 0.0) -> Tensor:
    """The transition matrix as a network trained on noisy labels shows it: its predictions at one anchor per class.

    Row c is the prediction for the sample that is surest of class c (Patrini et al., 2017).

    Args:
        probabilities: The predictions for the training set, [N, C].
        filter_top: The share of samples with the largest p_c that are passed over as outliers before the anchor of c
            is taken, in [0, 1); .03 for CIFAR-10 in the authors' settings, 0 otherwise.

    Returns:
        The estimate, [C, C], detached; float32 for half-precision predictions.

    Raises:
        ValueError: If filter_top is outside its range or there are no predictions of shape [N, C].
    """
    check_range("filter_top", filter_top, 0.0, 1.0, open_high=True)
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(
            f"probabilities have the shape {tuple(probabilities.shape)}. Give the predictions of at least one sample, "
            "[N, C]."
        )
    probabilities = upcast(probabilities.detach())
    # each class ranks the unfiltered predictions; the published code zeroes them in place, so that later rows see it
    passed_over = min(round(filter_top * len(probabilities)), len(probabilities) - 1)
    anchors = torch.argsort(probabilities, dim=0, descending=True, stable=True)[passed_over]
    return probabilities[anchors]


def gold_transition(probabilities: Tensor, target: Tensor) -> Tensor:
    """The transition matrix from samples whose true labels are known (Hendrycks et al., 2018): GLC in [iada Table 5].

    Row c is the mean prediction, of a network trained on noisy labels, for the samples of class c.

    Args:
        probabilities: The predictions for the clean samples, [M, C].
        target: Their true class ids, [M] (int64).

    Returns:
        The estimate, [C, C], detached; float32 for half-precision predictions.

    Raises:
        ValueError: If a class has no sample, or the shapes or dtypes do not fit.
    """
    check_logits(probabilities)
    check_ids(target, probabilities.shape[0])
    probabilities = upcast(probabilities.detach())
    classes = probabilities.shape[1]
    counts = torch.bincount(target, minlength=classes)
    missing = (counts == 0).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"target has no sample of {len(missing)} of {classes} classes (first: {missing[0]}), whose rows of the "
            "transition matrix are unknown then. Give at least one clean sample of every class."
        )
    sums = probabilities.new_zeros(classes, classes).index_add_(0, target, probabilities)
    return sums / counts.unsqueeze(1)
