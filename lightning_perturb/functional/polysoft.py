"""PolySoft: the loss behind polynomial soft self-paced weights."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability


def polysoft_loss(logits: Tensor, target: Tensor, lam: float | Tensor, d: float | Tensor) -> Tensor:
    """The PolySoft loss (d - 1) lam / d (1 - (1 - CE / lam)^(d / (d - 1))), constant from CE = lam on [narl 4].

    Its derivative in the cross-entropy is the weight (1 - CE / lam)^(1 / (d - 1)) that the sample implicitly gets.
    Values and gradients, also those in lam and d, are finite for every cross-entropy.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        lam: The cross-entropy from which a sample counts as noise, above 0; a number, or a tensor (scalar or [B]),
            whose values are not checked and which receives gradients.
        d: The degree, above 1 (2 gives linear weights); of the same forms.

    Returns:
        The losses, [B], at most (d - 1) lam / d; float32 for half-precision logits.

    Raises:
        ValueError: If lam or d is outside its range or the shapes or dtypes do not fit.
    """
    loss = -label_log_probability(logits, target)
    lam = hyperparameter("lam", lam, loss, open_low=True, open_high=True)
    d = hyperparameter("d", d, loss, 1.0, open_low=True, open_high=True)
    share = loss / lam
    # one rounding error below 1 the power is 0 already, and its logarithm is still finite
    # negated, so that a NaN stays one
    inside = ~(share >= 1 - torch.finfo(loss.dtype).eps)
    log_rest = torch.where(inside, -share, 0.0).log1p()
    risen = torch.where(inside, -(d / (d - 1) * log_rest).expm1(), 1.0)
    return (d - 1) * lam / d * risen


def polysoft_weight(loss: Tensor, lam: float | Tensor, d: float | Tensor) -> Tensor:
    """The weight (1 - CE / lam)^(1 / (d - 1)) that PolySoft implicitly gives a sample, 0 from CE = lam on.

    It is the derivative of :func:`polysoft_loss` in the cross-entropy, drawn in [narl Fig. 9].

    Args:
        loss: Cross-entropy of each sample, of any shape.
        lam: The loss's threshold, above 0: a number, or a tensor of that shape.
        d: The loss's degree, above 1, likewise.

    Returns:
        Weights in [0, 1] in the shape of ``loss``.
    """
    return (1 - loss / lam).clamp(min=0) ** (1 / (d - 1))
