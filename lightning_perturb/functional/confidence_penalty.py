"""Confidence penalty: a loss on predictions of low entropy [tax 20]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_logits, upcast


def confidence_penalty(logits: Tensor, tau: float) -> Tensor:
    """The penalty of each sample, max(0, tau - H(S(u))) (Pereyra et al., 2017) [tax 20].

    The loss is cross-entropy plus beta times this; the minus signs of eq. 20 fit a log-likelihood. From
    tau = log C on the hinge never acts, and the penalty is -H up to a constant, as in the authors' main form.

    Args:
        logits: u, [B, C].
        tau: The entropy in nats below which a prediction counts as too sure, at least 0.

    Returns:
        The penalties, [B], from 0 to tau; float32 for half-precision logits.

    Raises:
        ValueError: If tau is negative or the shape does not fit.
    """
    check_positive("tau", tau, zero=True)
    check_logits(logits)
    log_prob = torch.log_softmax(upcast(logits), 1)
    # the entropy by its definition: that of probabilities has an infinite derivative where one is 0
    return (tau + (log_prob.exp() * log_prob).sum(1)).relu()
