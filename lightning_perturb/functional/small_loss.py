"""Small-loss selection: how many samples of a batch count as clean, which, and how two networks agree on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.functional._arguments import check_logits, upcast


def keep_rate(epoch: int, forget_rate: float, gradual_epochs: float = 10, exponent: float = 1.0) -> float:
    """The share of samples that is kept, R(T) = 1 - tau min(T^c / T_k, 1) (Han et al., 2018).

    Args:
        epoch: T, from 0, in which all are kept.
        forget_rate: tau, the share that is dropped in the end, in [0, 1): the rate of the noise.
        gradual_epochs: T_k, above 0.
        exponent: c, above 0.

    Returns:
        R(T), in (0, 1].

    Raises:
        ValueError: If an argument is outside its range.
    """
    check_positive("epoch", epoch, zero=True)
    check_range("forget_rate", forget_rate, 0.0, 1.0, open_high=True)
    check_positive("gradual_epochs", gradual_epochs)
    check_positive("exponent", exponent)
    done: float = float(epoch) ** exponent
    return 1.0 - forget_rate * min(done / gradual_epochs, 1.0)


def small_loss(losses: Tensor, rate: float) -> Tensor:
    """The samples of smallest loss: floor(rate N) of N, at least one; of equal losses those that come first.

    Args:
        losses: The losses, [N]; no gradient flows.
        rate: The share that is kept, in (0, 1].

    Returns:
        True where a sample is kept, [N].

    Raises:
        ValueError: If rate is outside its range or losses are not [N].
    """
    check_range("rate", rate, 0.0, 1.0, open_low=True)
    if losses.ndim != 1:
        raise ValueError(f"losses have the shape {tuple(losses.shape)}. Give one for each sample, [N].")
    # a rate like 1 - 0.9 must not lose a sample to rounding
    count = min(max(int(rate * len(losses) + 1e-9), 1), len(losses))
    order = losses.detach().argsort(stable=True)
    return torch.zeros_like(losses, dtype=torch.bool).index_fill(0, order[:count], True)


def symmetric_divergence(logits: Tensor, peer_logits: Tensor) -> Tensor:
    """KL(p || q) + KL(q || p) of two networks' predictions, the agreement of JoCoR (Wei et al., 2020).

    Args:
        logits: The logits of p, [B, C].
        peer_logits: The logits of q, [B, C]; gradients flow through both.

    Returns:
        The divergences, [B], at least 0; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_logits(logits)
    if peer_logits.shape != logits.shape:
        raise ValueError(
            f"peer_logits have the shape {tuple(peer_logits.shape)} beside logits of {tuple(logits.shape)}: they must "
            "be of the same samples."
        )
    log_p, log_q = torch.log_softmax(upcast(logits), 1), torch.log_softmax(upcast(peer_logits), 1)
    forth = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    back = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
    return forth + back
