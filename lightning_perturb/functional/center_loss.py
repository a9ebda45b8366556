"""Centre loss: features drawn to the centre of their class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_range
from lightning_perturb.functional._arguments import check_ids, upcast
from lightning_perturb.functional._precision import full_precision


def center_loss(features: Tensor, target: Tensor, centers: Tensor) -> Tensor:
    """Half the squared distance of each feature from its class's centre (Wen et al., 2016).

    The loss is cross-entropy plus a weight (.003 in the paper) times this.

    Args:
        features: h, [B, A].
        target: Class ids, [B] (int64).
        centers: [C, A]; gradients flow into them as well, for centres that an optimizer moves.

    Returns:
        The losses, [B]; float32 for half-precision features.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    _check(features, target, centers)
    features = upcast(features)
    return 0.5 * (features - centers[target].to(features.dtype)).square().sum(1)


def update_centers(centers: Tensor, features: Tensor, target: Tensor, alpha: float = 0.5) -> Tensor:
    """The centres after one batch, c_j - alpha sum_{y_i = j} (c_j - h_i) / (1 + n_j) (Wen et al., 2016).

    Args:
        centers: [C, A].
        features: h, [B, A]; taken as constants. With several ranks give those of all of them.
        target: Class ids, [B] (int64).
        alpha: The rate, from 0 to 1.

    Returns:
        The new centres, [C, A], detached; those of classes without samples are unchanged.

    Raises:
        ValueError: If alpha is outside 0..1 or the shapes or dtypes do not fit.
    """
    check_range("alpha", alpha, 0.0, 1.0)
    _check(features, target, centers)
    with torch.no_grad(), full_precision(centers):
        # a product with the indicator of the classes sums in the same order in every run
        members = F.one_hot(target, len(centers)).to(centers.dtype)
        drift = members.t() @ (features.to(centers.dtype) - centers[target])
        return centers + alpha * drift / (1 + members.sum(0)).unsqueeze(1)


def _check(features: Tensor, target: Tensor, centers: Tensor) -> None:
    if features.ndim != 2 or centers.ndim != 2 or features.shape[1] != centers.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and centers of {tuple(centers.shape)} must be [B, A] and "
            "[C, A]."
        )
    check_ids(target, len(features))
