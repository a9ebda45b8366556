"""IADA: implicit adversarial data augmentation, its logits and what its loss regularises [iada 1-6]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional._arguments import check_ids, check_logits, column, upcast
from lightning_perturb.functional._precision import full_precision
from lightning_perturb.functional.cross_entropy import logit_gradient
from lightning_perturb.functional.isda import isda_perturbation


def feature_gradient(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the cross-entropy in the features, (S(u) - e_y) W, without a backward pass.

    Args:
        logits: u = W h + b, [B, C].
        target: Class ids, [B] (int64).
        weight: The classifier's weight W, [C, A].

    Returns:
        The gradients, [B, A], detached; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_ids(target, logits.shape[0])
    gradient = logit_gradient(logits, target)
    _check_weight(logits, weight)
    with full_precision(gradient):
        return gradient @ weight.detach().to(gradient.dtype)


def adversarial_logits(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """W s_i, how the logits move when the features move by the sign s_i of their gradient.

    Args:
        logits: u = W h + b, [B, C].
        target: Class ids, [B] (int64).
        weight: The classifier's weight W, [C, A]; gradients flow into it, while s_i is a constant.

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    sign = feature_gradient(logits, target, weight).sign()
    with full_precision(sign):
        return sign @ weight.to(sign.dtype).t()


def iada_logits(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    epsilon: float | Tensor | None = None,
    covariance: Tensor | None = None,
    alpha: float | Tensor = 0.5,
    beta: float | Tensor = 1.0,
    log_prior: Tensor | None = None,
) -> Tensor:
    """The logits of the IADA loss [iada 6]: u_j + epsilon_i w_j s_i + alpha R[y_i, j] + beta log pi_j.

    s_i is the sign of the cross-entropy's gradient in the features, as a constant, so that delta_i = epsilon_i s_i;
    R is ``isda_perturbation``. The cross-entropy of the result is the loss; inference uses the plain logits. Each of
    the three terms is left out where its argument is missing, as in the paper's Table 7. Gradients flow into the
    weight, epsilon, the covariance, alpha and beta.

    Args:
        logits: u = W h + b, [B, C].
        target: Class ids, [B] (int64).
        weight: The classifier's weight W, [C, A].
        epsilon: Direction and bound of each sample's perturbation, in (-1, 1), above 0 for adversarial: a number or a
            tensor (scalar or [B]); none for no perturbation.
        covariance: Sigma, [C, A, A], or variances, [C, A]; none for no term alpha R.
        alpha: The spread of the augmentation, a number or a scalar tensor.
        beta: The weight of the prior, a number or a scalar tensor.
        log_prior: log pi, [C], see ``log_prior``; none for no prior.

    Returns:
        The perturbed logits, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    _check_weight(logits, weight)
    perturbed = upcast(logits)
    if epsilon is not None:
        perturbed = perturbed + column(epsilon) * adversarial_logits(logits, target, weight)
    if covariance is not None:
        perturbed = perturbed + alpha * isda_perturbation(weight, covariance, target)
    if log_prior is not None:
        perturbed = perturbed + beta * _checked_prior(logits, log_prior)
    return perturbed


def regularization_term(logits: Tensor, target: Tensor, shift: Tensor) -> Tensor:
    """sum_j q_j (t_j - t_y) with q = S(u): what a shift t of the logits adds to the cross-entropy, to first order.

    The three terms of the paper's Table 1 are of this form.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        shift: t, [B, C] or [C].

    Returns:
        The terms, [B].

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    shift = shift.expand_as(logits)
    return (torch.softmax(upcast(logits), 1) * (shift - shift.gather(1, target.unsqueeze(1)))).sum(1)


def generalization_term(logits: Tensor, target: Tensor, weight: Tensor, covariance: Tensor) -> Tensor:
    """The part G of the IADA loss, sum_{j != y} q_j R[y, j] [iada Table 1], with q = S(u).

    To first order the IADA loss is cross-entropy + alpha G + R + beta F.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        weight: The classifier's weight, [C, A].
        covariance: Sigma, [C, A, A], or variances, [C, A].

    Returns:
        The terms, [B], at least 0.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    _check_weight(logits, weight)
    return regularization_term(logits, target, isda_perturbation(weight, covariance, target))


def robustness_term(logits: Tensor, target: Tensor, weight: Tensor, epsilon: float | Tensor) -> Tensor:
    """The part R of the IADA loss, sum_{j != y} q_j (w_j - w_y) delta_i [iada Table 1], with q = S(u).

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        weight: The classifier's weight, [C, A].
        epsilon: Direction and bound of the perturbation, a number or a tensor (scalar or [B]).

    Returns:
        The terms, [B], with the sign of epsilon.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    return epsilon * regularization_term(logits, target, adversarial_logits(logits, target, weight))


def fairness_term(logits: Tensor, target: Tensor, log_prior: Tensor) -> Tensor:
    """The part F of the IADA loss, sum_{j != y} q_j log(pi_j / pi_y) [iada Table 1], with q = S(u).

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        log_prior: log pi, [C].

    Returns:
        The terms, [B]: negative for common classes, positive for rare ones.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    return regularization_term(logits, target, _checked_prior(logits, log_prior))


def _check_weight(logits: Tensor, weight: Tensor) -> None:
    if weight.ndim != 2 or logits.ndim != 2 or weight.shape[0] != logits.shape[1]:
        raise ValueError(
            f"weight has the shape {tuple(weight.shape)} beside logits of {tuple(logits.shape)}. Give the classifier's "
            "weight, [C, A]."
        )


def _checked_prior(logits: Tensor, log_prior: Tensor) -> Tensor:
    if log_prior.shape != logits.shape[1:]:
        raise ValueError(
            f"log_prior has the shape {tuple(log_prior.shape)} beside logits of {tuple(logits.shape)}. Give one value "
            "per class, [C]."
        )
    return log_prior.to(upcast(logits).dtype)
