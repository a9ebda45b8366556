"""Cross-entropy per sample, single-label and multi-label, and the margins that go with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.functional._arguments import check_ids, check_logits, check_target, upcast
from lightning_perturb.functional._multi_hot import check_multi_hot


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample, the loss l(S(u), y) that every method perturbs [tax 1].

    Gradients flow into soft labels as well as into the logits.

    Args:
        logits: u, [B, C].
        target: Class ids [B] in 0..C-1 (int64) or soft labels [B, C].

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_target(target, *logits.shape)
    logits = upcast(logits)
    if target.ndim == 2:
        target = target.to(logits.dtype)
    return F.cross_entropy(logits, target, reduction="none")


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Multi-label cross-entropy of each sample: the mean over classes of softplus(u) - y u [lpl 34].

    Args:
        logits: u, [B, C]; one class is enough here.
        target: Multi-hot or soft labels, [B, C], of any dtype.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes differ.
    """
    return binary_cross_entropy_entries(logits, target).mean(1)


def binary_cross_entropy_entries(logits: Tensor, target: Tensor) -> Tensor:
    """The entries that ``binary_cross_entropy`` averages, softplus(u) - y u.

    Args:
        logits: u, [B, C]; one class is enough here.
        target: Multi-hot or soft labels, [B, C], of any dtype.

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes differ.
    """
    check_multi_hot(logits, target)
    logits = upcast(logits)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")


def logit_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """The gradient of the cross-entropy in the logits, S(u) - y [tax 58], as a constant.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].

    Returns:
        A new detached tensor, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_target(target, *logits.shape)
    with torch.no_grad():
        gradient = torch.softmax(upcast(logits), 1)
        if target.ndim == 2:
            return gradient.sub_(target)
        return gradient.scatter_add_(1, target.unsqueeze(1), gradient.new_full((), -1.0).expand(len(target), 1))


def one_hot(target: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Class ids as one-hot rows.

    Args:
        target: Class ids, [B] (int64).
        num_classes: C.
        dtype: The dtype of the result.

    Returns:
        e_y, [B, C].

    Raises:
        ValueError: If target does not hold class ids.
    """
    check_ids(target)
    rows = torch.zeros(target.shape[0], num_classes, dtype=dtype, device=target.device)
    return rows.scatter_(1, target.unsqueeze(1), 1)


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """The functional margin u_y - max_{j != y} u_j: positive where the given class wins.

    Args:
        logits: u, [B, C] with C >= 2.
        target: Class ids, [B] (int64).

    Returns:
        The margins, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    own = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    # the two largest hold the best rival, whichever class is given: no masked copy of the logits
    best, who = logits.topk(2, dim=1)
    rival = torch.where(who[:, 0] == target, best[:, 1], best[:, 0])
    return upcast(own) - upcast(rival)


def probability_margin(logits: Tensor, target: Tensor) -> Tensor:
    """The margin of the probabilities, p_y - max_{j != y} p_j, in [-1, 1].

    Args:
        logits: u, [B, C] with C >= 2.
        target: Class ids, [B] (int64).

    Returns:
        The margins, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    return margin(torch.softmax(upcast(logits), 1), target)
