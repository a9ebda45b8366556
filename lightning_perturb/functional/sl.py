"""SL: symmetric cross-entropy, and the two bounded losses it leads to, reverse cross-entropy and 1 - p_y."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability


def mae_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - p_y, half of the absolute error between prediction and one-hot label.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).

    Returns:
        The losses, [B], from 0 to 1; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    return -label_log_probability(logits, target).expm1()


def rce_loss(logits: Tensor, target: Tensor, A: float = -4.0) -> Tensor:
    """Reverse cross-entropy, -A (1 - p_y) [narl, before eq. 3]: prediction and label change places, with log 0 := A.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        A: What stands for the logarithm of 0, below 0. The authors' current code has -4, the first one log(1e-4).

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If A is not negative or the shapes or dtypes do not fit.
    """
    _check_negative(A)
    return -A * mae_loss(logits, target)


def sl_loss(
    logits: Tensor,
    target: Tensor,
    gamma1: float | Tensor = 0.1,
    gamma2: float | Tensor = 1.0,
    A: float = -4.0,
) -> Tensor:
    """Symmetric cross-entropy, gamma1 CE + gamma2 RCE [narl 3].

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        gamma1: The weight of cross-entropy, at least 0 (published: .1 for CIFAR-10, 6 for CIFAR-100); a number, or a
            tensor (scalar or [B]), whose values are not checked and which receives gradients.
        gamma2: The weight of reverse cross-entropy, of the same forms.
        A: As in ``rce_loss``.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If a weight is negative, A is not, or the shapes or dtypes do not fit.
    """
    _check_negative(A)
    log_p = label_log_probability(logits, target)
    return hyperparameter("gamma1", gamma1, log_p) * -log_p + hyperparameter("gamma2", gamma2, log_p) * (
        A * log_p.expm1()
    )


def _check_negative(A: float) -> None:
    if not A < 0:
        raise ValueError(f"A={A!r} must be below 0: it stands for the logarithm of 0.")
