"""Logit adjustment: the class prior added to the logits in training, or taken off afterwards [tax 12, 39; lpl 2]."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._arguments import check_logits, upcast
from lightning_perturb.functional._counts import check_counts


def log_prior(counts: Tensor) -> Tensor:
    """log pi_c, the logarithm of the share of each class.

    Args:
        counts: The numbers of samples, [C], above 0.

    Returns:
        [C], float32 (float64 for float64 counts).

    Raises:
        ValueError: If a class has no samples or counts are not of shape [C].
    """
    check_counts(counts)
    counts = counts if counts.is_floating_point() else counts.float()
    return counts.log() - counts.sum().log()


def logit_adjustment(logits: Tensor, log_prior: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """The adjusted logits u_c + tau log pi_c [tax 12]; their cross-entropy is the loss, and u is used in tests.

    For post-hoc adjustment of a network trained with plain cross-entropy give -tau, and predict by the result.

    Args:
        logits: u, [B, C].
        log_prior: log pi, [C].
        tau: The strength: a number, a scalar tensor, or one value per class, [C] [tax 39].

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_logits(logits)
    classes = logits.shape[1]
    if log_prior.shape != (classes,):
        raise ValueError(
            f"log_prior has the shape {tuple(log_prior.shape)} beside logits of {tuple(logits.shape)}. Give one value "
            "per class, [C]."
        )
    if isinstance(tau, Tensor) and tau.shape not in ((), (classes,)):
        raise ValueError(f"tau has the shape {tuple(tau.shape)}. Give a scalar or one value per class, [{classes}].")
    logits = upcast(logits)
    return logits + (tau * log_prior).to(logits.dtype)
