"""Normalised losses: a loss over its sum for all labels, which makes it symmetric (Ma et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._hyperparameters import hyperparameter


def normalized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Normalised cross-entropy, log p_y / sum_j log p_j: the active part of APL in [iada Table 5].

    Its sum over all labels is 1 whatever the prediction.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).

    Returns:
        The losses, [B], from 0 to 1; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    return _normalized(-_log_probabilities(logits, target), target)


def normalized_focal_loss(
    logits: Tensor, target: Tensor, gamma: float | Tensor = 0.5, *, detach_weight: bool = False
) -> Tensor:
    """Normalised focal loss, (1 - p_y)^gamma log p_y / sum_j (1 - p_j)^gamma log p_j.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        gamma: The focus, at least 0 (0 gives normalised cross-entropy); a number, or a tensor (scalar or [B]), whose
            values are not checked.
        detach_weight: Hold the weights (1 - p_j)^gamma constant in the gradient, as the published code does; the
            formula's gradient goes through them.

    Returns:
        The losses, [B], from 0 to 1; float32 for half-precision logits.

    Raises:
        ValueError: If gamma is negative or the shapes or dtypes do not fit.
    """
    log_prob = _log_probabilities(logits, target)
    focus = hyperparameter("gamma", gamma, log_prob[:, 0], open_high=True)
    # at p = 1 the power has no derivative for gamma below 1
    rest = log_prob.expm1().neg().clamp(min=torch.finfo(log_prob.dtype).tiny)
    weight = rest.pow(focus.unsqueeze(1) if focus.ndim else focus)
    return _normalized((weight.detach() if detach_weight else weight) * -log_prob, target)


def _log_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    check_logits(logits)
    check_ids(target, logits.shape[0])
    return torch.log_softmax(upcast(logits), 1)


def _normalized(losses: Tensor, target: Tensor) -> Tensor:
    """Of the losses [B, C] that each label would have, the given one's over their sum, which is never 0."""
    return losses.gather(1, target.unsqueeze(1)).squeeze(1) / losses.sum(1)
