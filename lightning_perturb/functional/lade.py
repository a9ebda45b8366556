"""LADE: logits that know nothing of the label distribution (Hong et al., 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast


def lade_regularization(logits: Tensor, target: Tensor, log_prior: Tensor, lam: float = 0.1) -> Tensor:
    """sum_c pi_c (s_c - m_c + lam s_c^2), one number of the batch, as in the published code.

    m_c is the mean of u_c over the samples of class c, and s_c = log (1/N sum_i e^{u_ic}) - log (C pi_c): the bound of
    Donsker and Varadhan on the divergence between the features of class c and those of balanced classes, held in place
    by the square.

    Args:
        logits: u, [B, C]; of the samples of all devices where there are several.
        target: Class ids, [B] (int64). A class without a sample has m_c = 0.
        log_prior: log pi, [C].
        lam: The weight of the squares, at least 0.

    Returns:
        A scalar; float32 for half-precision logits.

    Raises:
        ValueError: If lam is negative or the shapes or dtypes do not fit.
    """
    check_positive("lam", lam, zero=True)
    check_logits(logits)
    check_ids(target, logits.shape[0])
    samples, classes = logits.shape
    if log_prior.shape != (classes,):
        raise ValueError(f"log_prior has the shape {tuple(log_prior.shape)} where [{classes}] is needed.")
    logits = upcast(logits)
    log_prior = log_prior.to(logits.dtype)
    own = F.one_hot(target, classes).to(logits.dtype)
    mean = (own * logits).sum(0) / own.sum(0).clamp(min=1)
    spread = logits.logsumexp(0) - math.log(samples) - log_prior - math.log(classes)
    return torch.sum(log_prior.exp() * (spread - mean + lam * spread.square()))
