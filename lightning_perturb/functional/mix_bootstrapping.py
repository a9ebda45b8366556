"""MixBootstrapping: bootstrapping and online label smoothing in one label [tax 67-69]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional.label_perturbation import perturb_label


def mix_bootstrapping_target(
    logits: Tensor, target: Tensor, soft: Tensor, alpha: float, beta: float, detach: bool = False
) -> Tensor:
    """The labels y + alpha (beta S_y + (1 - beta) S(u) - y) [tax 67].

    beta = 0 is soft bootstrapping (whose beta is 1 - alpha), beta = 1 online label smoothing.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        soft: The class averages of the epoch before, [C, C] [tax 68].
        alpha: How far the label moves, from 0 to 1.
        beta: The share of the class average in what it moves to, from 0 to 1.
        detach: Whether the prediction inside the label is a constant.

    Returns:
        Soft labels, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If alpha or beta is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_rate("alpha", alpha)
    check_rate("beta", beta)
    check_logits(logits)
    check_ids(target, logits.shape[0])
    prediction = torch.softmax(upcast(logits.detach() if detach else logits), 1)
    mixed = torch.lerp(prediction, soft[target].to(prediction.dtype), beta)
    return perturb_label(target, mixed, alpha)
