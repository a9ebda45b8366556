"""Partners of samples for mixing, drawn alike on any number of ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.core import random as keyed_random
from lightning_perturb.functional.mixup import symmetric_beta
from lightning_perturb.functional.selective_mixup import choose_partners

# enough that the rejection in symmetric_beta never fails
_PAIRS = 32


def partners(seed: int, epoch: int, keys: Tensor) -> Tensor:
    """A random cycle through the samples: nobody is its own partner, and everybody is one once.

    Args:
        seed: Seed of the run.
        epoch: Epoch.
        keys: One integer for each sample of all ranks ``[N]``; the cycle does not depend on their order.

    Returns:
        Places of the partners ``[N]``.
    """
    # by key first: equal draws must not fall back on the order of the ranks
    by_key = keys.argsort(stable=True)
    order = by_key[keyed_random.uniform(seed, "partner", epoch, keys[by_key]).argsort(stable=True)]
    return torch.empty_like(order).index_copy_(0, order, order.roll(-1))


def allowed_partners(seed: int, epoch: int, keys: Tensor, allowed: Tensor) -> Tensor:
    """For each sample any of those that it may be mixed with, alike likely; itself where there is none.

    Args:
        seed: Seed of the run.
        epoch: Epoch.
        keys: One integer for each sample of all ranks ``[N]``; the choice does not depend on their order.
        allowed: Which samples j may be mixed with i, ``[N, N]`` in bool.

    Returns:
        Places of the partners ``[N]``.
    """
    by_key = keys.argsort(stable=True)
    draw = keyed_random.uniform(seed, "partner", epoch, keys[by_key])
    chosen = by_key[choose_partners(allowed[by_key][:, by_key], draw)]
    return torch.empty_like(chosen).index_copy_(0, by_key, chosen)


def mixing_weights(seed: int, epoch: int, keys: Tensor, alpha: float) -> Tensor:
    """Draws of Beta(alpha, alpha).

    Args:
        seed: Seed of the run.
        epoch: Epoch.
        keys: One integer for each draw ``[N]``.
        alpha: The parameter, above 0.

    Returns:
        ``[N]``.
    """
    pairs = _PAIRS if alpha <= 0.5 else 1
    return symmetric_beta(keyed_random.uniform(seed, "mixing weight", epoch, keys, pairs, 2), alpha)
