"""Self-paced learning: its sample weights, and the loss ratio by which MixPert does the same [tax 63-65]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.functional.cross_entropy import cross_entropy
from lightning_perturb.functional.mixpert import hard_by_value, positive_perturbation


def spl_weights(loss: Tensor, lam: float) -> Tensor:
    """The original ("hard") self-paced weights: 1 where l <= lam, else 0 [tax 63-64].

    Args:
        loss: The losses, any shape.
        lam: The age lambda, above 0; it grows during training.

    Returns:
        The weights, in the shape and dtype of the losses.

    Raises:
        ValueError: If lam is not positive.
    """
    check_positive("lam", lam)
    return (loss.detach() <= lam).to(loss.dtype)


def linear_spl_weights(loss: Tensor, lam: float) -> Tensor:
    """Linear soft weights, max(0, 1 - l / lam) (Jiang et al., Easy samples first, 2014).

    They minimise w l + lam (w^2 / 2 - w) over w in [0, 1].

    Args:
        loss: The losses, at least 0, any shape.
        lam: The age lambda, above 0.

    Returns:
        The weights, in the shape of the losses.

    Raises:
        ValueError: If lam is not positive.
    """
    check_positive("lam", lam)
    return (1 - loss.detach() / lam).clamp(0, 1)


def logarithmic_spl_weights(loss: Tensor, lam: float) -> Tensor:
    """Logarithmic soft weights, log(l + zeta) / log(zeta) up to l = lam, then 0 (Jiang et al., 2014).

    With zeta = 1 - lam they minimise w l + zeta w - zeta^w / log(zeta) over w in [0, 1].

    Args:
        loss: The losses, at least 0, any shape.
        lam: The age lambda, in (0, 1).

    Returns:
        The weights, in the shape of the losses.

    Raises:
        ValueError: If lam is outside (0, 1).
    """
    check_range("lam", lam, 0.0, 1.0, open_low=True, open_high=True)
    # from l = lam on the argument is 1 or more and the quotient at most 0
    return ((loss.detach() + (1 - lam)).log() / math.log1p(-lam)).clamp(0, 1)


def mixture_spl_weights(loss: Tensor, lam: float, lam_low: float) -> Tensor:
    """Mixture weights: 1 up to lam_low, 0 from lam on, zeta (1 / l - 1 / lam) between (Jiang et al., 2014).

    With zeta = lam lam_low / (lam - lam_low) they join without a jump; they minimise w l - zeta log(w + zeta / lam)
    over w in [0, 1].

    Args:
        loss: The losses, at least 0, any shape.
        lam: The loss from which the weight is 0, above lam_low.
        lam_low: The loss up to which the weight is 1, above 0.

    Returns:
        The weights, in the shape of the losses.

    Raises:
        ValueError: If not 0 < lam_low < lam.
    """
    check_positive("lam", lam)
    check_range("lam_low", lam_low, 0.0, lam, open_low=True, open_high=True)
    zeta = lam * lam_low / (lam - lam_low)
    # the middle piece is above 1 on the left and below 0 on the right: the clamp makes the other two
    return (zeta / loss.detach() - zeta / lam).clamp(0, 1)


def loss_ratio(logits: Tensor, target: Tensor, eta: float, tau: float) -> Tensor:
    """Perturbed over original loss under the positive perturbation of hard samples [tax 56, 59], drawn in Fig. 12.

    With eta above twice the norm of the logits [tax 65] it goes from 1 (l < tau) towards 0 (l >= tau), like a
    self-paced weight. A sample without loss has the ratio 1.

    Args:
        logits: u, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        eta: The step of the perturbation, at least 0.
        tau: The loss from which a sample is perturbed, at least 0.

    Returns:
        The ratios, [B], detached.

    Raises:
        ValueError: If eta or tau is negative or the shapes or dtypes do not fit.
    """
    check_positive("tau", tau, zero=True)
    with torch.no_grad():
        original = cross_entropy(logits, target)
        perturbed = cross_entropy(logits + positive_perturbation(logits, target, eta), target)
        changed = hard_by_value(original, tau) & (original > 0)
        return torch.where(changed, perturbed / original, 1.0)
