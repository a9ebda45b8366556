"""Knowledge distillation: labels moved towards a teacher's prediction [tax 14, 15]."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_logits, upcast
from lightning_perturb.functional.cross_entropy import cross_entropy
from lightning_perturb.functional.dlb import dlb_loss


def knowledge_distillation_loss(
    logits: Tensor, target: Tensor, teacher_logits: Tensor, lam: float = 1.0, temperature: float = 4.0
) -> Tensor:
    """CE(u, y) + lam T^2 KL(S(t / T) || S(u / T)) (Hinton et al., 2015) [tax 15].

    The divergence is [tax 15]'s l(p, q) - l(p, p') with both predictions at the temperature, as it is computed in
    practice; T^2 keeps its gradient in proportion when T changes.

    Args:
        logits: u of the student, [B, C].
        target: Class ids [B] (int64) or soft labels [B, C].
        teacher_logits: t, [B, C]; taken as constants.
        lam: The weight of the teacher, at least 0.
        temperature: T, above 0.

    Returns:
        The losses, [B]; float32 for half-precision logits.

    Raises:
        ValueError: If a number is outside its range or the shapes or dtypes do not fit.
    """
    check_positive("lam", lam, zero=True)
    return cross_entropy(logits, target) + lam * dlb_loss(logits, teacher_logits, temperature)


def balanced_teacher_logits(teacher_logits: Tensor, weights: Tensor, temperature: float = 2.0) -> Tensor:
    """Logits whose prediction at the temperature is w_c S(t / T)_c over its sum (Zhang et al., 2023).

    Args:
        teacher_logits: t, [B, C].
        weights: The class weights w, [C], above 0.
        temperature: T, above 0.

    Returns:
        t + T log w, [B, C]; float32 for half precision.

    Raises:
        ValueError: If the temperature is not positive or the shapes do not fit.
    """
    check_positive("temperature", temperature)
    check_logits(teacher_logits)
    if weights.shape != teacher_logits.shape[1:]:
        raise ValueError(f"weights have the shape {tuple(weights.shape)} where [{teacher_logits.shape[1]}] is needed.")
    teacher_logits = upcast(teacher_logits)
    return teacher_logits + temperature * weights.to(teacher_logits.dtype).log()
