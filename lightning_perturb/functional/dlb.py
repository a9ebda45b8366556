"""DLB: self-distillation from the last mini-batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_logits, upcast


def dlb_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The distillation term of each sample, T^2 KL(S(t / T) || S(u / T)).

    Args:
        logits: u, [B, C].
        teacher_logits: t, the logits of the same samples one batch earlier, [B, C]; taken as constants.
        temperature: T, above 0.

    Returns:
        The terms, [B], at least 0; float32 for half-precision logits.

    Raises:
        ValueError: If the temperature is not positive or the shapes do not fit.
    """
    check_positive("temperature", temperature)
    check_logits(logits)
    if teacher_logits.shape != logits.shape:
        raise ValueError(
            f"teacher_logits have the shape {tuple(teacher_logits.shape)} beside logits of "
            f"{tuple(logits.shape)}: they must be of the same samples."
        )
    student = torch.log_softmax(upcast(logits) / temperature, 1)
    teacher = torch.log_softmax(upcast(teacher_logits.detach()) / temperature, 1)
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1) * temperature**2
