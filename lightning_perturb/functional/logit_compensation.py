"""Logit compensation: learned scales and shifts of the logits of positives and of negatives [lpl 12-14]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._multi_hot import check_multi_hot


def logit_compensation_loss(
    logits: Tensor,
    target: Tensor,
    positive_scale: Tensor,
    positive_shift: Tensor,
    negative_scale: Tensor,
    negative_shift: Tensor,
) -> Tensor:
    """The compensated loss of each sample [lpl 12], the mean over classes of its entries.

    softplus(-(sigma^p u + mu^p)) for a positive and softplus(sigma^n u + mu^n) for a negative label. Scales of 1 and
    shifts of 0 give binary cross-entropy. Gradients flow into all four.

    Args:
        logits: u, [B, C].
        target: Multi-hot labels, [B, C], of any dtype.
        positive_scale: sigma^p, [C], above 0 (for learned ones take the softplus of a parameter).
        positive_shift: mu^p, [C].
        negative_scale: sigma^n, [C], above 0.
        negative_shift: mu^n, [C].

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_multi_hot(logits, target)
    named = {
        "positive_scale": positive_scale,
        "positive_shift": positive_shift,
        "negative_scale": negative_scale,
        "negative_shift": negative_shift,
    }
    for name, value in named.items():
        if value.shape != logits.shape[1:]:
            raise ValueError(f"{name} has the shape {tuple(value.shape)} where [{logits.shape[1]}] is needed.")
    u = upcast(logits)
    p_scale, p_shift, n_scale, n_shift = (value.to(u.dtype) for value in named.values())
    positive, negative = -F.logsigmoid(p_scale * u + p_shift), -F.logsigmoid(-(n_scale * u + n_shift))
    return torch.lerp(negative, positive, target.to(u.dtype)).mean(1)
