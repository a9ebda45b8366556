"""Label smoothing: labels moved towards the uniform distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_rate
from lightning_perturb.functional._arguments import check_target


def smooth(target: Tensor, num_classes: int, eps: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smoothed labels, (1 - eps) y + eps / C, the label perturbation LS of Table 1 [tax].

    Args:
        target: Class ids [B] (int64) or soft labels [B, C].
        num_classes: C.
        eps: The share given to the uniform distribution, from 0 to 1.
        dtype: The dtype of the result for class ids; soft labels keep theirs.

    Returns:
        Soft labels, [B, C].

    Raises:
        ValueError: If eps is outside 0..1 or target does not fit.
    """
    check_rate("eps", eps)
    check_target(target, target.shape[0], num_classes)
    share = eps / num_classes
    if target.ndim == 2:
        return target * (1 - eps) + share
    rows = torch.full((target.shape[0], num_classes), share, dtype=dtype, device=target.device)
    return rows.scatter_(1, target.unsqueeze(1), 1 - eps + share)
