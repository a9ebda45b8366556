"""GCE: the generalised cross-entropy, and its truncated form."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability
from lightning_perturb.functional._ratios import expm1_ratio


def gce_loss(logits: Tensor, target: Tensor, q: float | Tensor = 0.7) -> Tensor:
    """The generalised cross-entropy (1 - p_y^q) / q [narl 2]: cross-entropy at q = 0, 1 - p_y at q = 1.

    Computed from log p_y, so that neither small q nor small p_y loses accuracy. Published code takes a line in p_y
    below p_y = .003 instead, which jumps for every q but .56.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        q: From 0 to 1; a number, or a tensor (scalar or [B]), whose values are not checked and which receives
            gradients.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If q is outside 0..1 or the shapes or dtypes do not fit.
    """
    log_p = label_log_probability(logits, target)
    return _gce(log_p, hyperparameter("q", q, log_p, 0.0, 1.0))


def truncated_gce_loss(logits: Tensor, target: Tensor, q: float | Tensor = 0.7, k: float | Tensor = 0.5) -> Tensor:
    """The truncated generalised cross-entropy (Zhang and Sabuncu, 2018): constant where p_y <= k.

    It is the smaller of the loss at p_y and the loss at k, so samples below k give no gradient. The authors hold the
    set of these samples fixed for some epochs: see ``truncated_gce_keep``.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        q: As in ``gce_loss``.
        k: The probability from which a sample counts, in (0, 1]; a number, or a tensor (scalar or [B]), whose values
            are not checked and which receives gradients.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If q or k is outside its range or the shapes or dtypes do not fit.
    """
    log_p = label_log_probability(logits, target)
    least = hyperparameter("k", k, log_p, 0.0, 1.0, open_low=True).log()
    return _gce(torch.maximum(log_p, least), hyperparameter("q", q, log_p, 0.0, 1.0))


def truncated_gce_keep(logits: Tensor, target: Tensor, k: float = 0.5) -> Tensor:
    """The samples that the truncated loss learns from: those with p_y > k.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        k: The probability from which a sample counts, in (0, 1].

    Returns:
        True where a sample is kept, [B].

    Raises:
        ValueError: If k is outside its range or the shapes or dtypes do not fit.
    """
    with torch.no_grad():
        log_p = label_log_probability(logits, target)
        return log_p > hyperparameter("k", k, log_p, 0.0, 1.0, open_low=True).log()


def _gce(log_p: Tensor, q: Tensor) -> Tensor:
    return -log_p * expm1_ratio(-q * log_p)
