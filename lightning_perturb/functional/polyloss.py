"""PolyLoss: cross-entropy with other coefficients of its first polynomial terms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_perturb.functional._hyperparameters import hyperparameter, label_log_probability


def poly_loss(logits: Tensor, target: Tensor, epsilons: Sequence[float | Tensor] = (2.0,)) -> Tensor:
    """-log p_y + sum_j epsilon_j (1 - p_y)^j (Leng et al., 2022), the loss perturbation PolyLoss of Table 1 [tax].

    Cross-entropy is sum_j (1 - p_y)^j / j, so epsilon_j is added to the coefficient 1 / j; with one epsilon it is
    Poly-1.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        epsilons: epsilon_1, epsilon_2, ...; numbers or tensors (scalar or [B]). The authors take epsilon_1 = 2 for
            ImageNet; an epsilon_j below -1 / j makes the loss fall with the error.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    log_p = label_log_probability(logits, target)
    loss, rest = -log_p, -log_p.expm1()
    for j, epsilon in enumerate(epsilons, 1):
        loss = loss + hyperparameter(f"epsilons[{j - 1}]", epsilon, log_p, -float("inf")) * rest.pow(j)
    return loss
