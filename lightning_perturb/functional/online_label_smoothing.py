"""Online label smoothing: labels moved towards the class's average prediction of the epoch before [tax 68-69]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_rate
from lightning_perturb.functional._arguments import check_ids, upcast
from lightning_perturb.functional.label_perturbation import perturb_label


def accumulate(prob: Tensor, target: Tensor, num_classes: int, confidence: str = "correct") -> tuple[Tensor, Tensor]:
    """One batch's part of the class averages: sum conf_j p_j and sum conf_j by class [tax 68].

    Args:
        prob: The predictions p, [B, C].
        target: Class ids, [B] (int64).
        num_classes: C.
        confidence: ``"correct"`` counts only correctly predicted samples, ``"one"`` counts all [tax 69].

    Returns:
        The sums [C, C], whose row c belongs to the samples labelled c, and the weights Z [C]; detached.

    Raises:
        ValueError: If confidence is unknown or the shapes or dtypes do not fit.
    """
    check_choice("confidence", confidence, ("correct", "one"))
    if prob.ndim != 2 or prob.shape[1] != num_classes:
        raise ValueError(
            f"prob has the shape {tuple(prob.shape)}; with num_classes={num_classes} it must be [B, {num_classes}]."
        )
    check_ids(target, prob.shape[0])
    with torch.no_grad():
        prob = upcast(prob)
        if confidence == "correct":
            conf = (prob.argmax(1) == target).to(prob.dtype)
            prob = prob * conf.unsqueeze(1)
        else:
            conf = prob.new_ones(prob.shape[0])
        sums = prob.new_zeros(num_classes, num_classes).index_add_(0, target, prob)
        return sums, prob.new_zeros(num_classes).index_add_(0, target, conf)


def class_average(sums: Tensor, weights: Tensor) -> Tensor:
    """The average prediction of each class [tax 68]; a class without weight gets the uniform 1 / C.

    Args:
        sums: The weighted sums of predictions, [C, C].
        weights: The normalisers Z, [C], at least 0.

    Returns:
        The averages S, [C, C]; each row sums to 1.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if sums.ndim != 2 or sums.shape != (weights.numel(), weights.numel()):
        raise ValueError(
            f"sums of shape {tuple(sums.shape)} and weights of shape {tuple(weights.shape)} must be [C, C] and [C]."
        )
    z = weights.unsqueeze(1)
    return torch.where(z > 0, sums / torch.where(z > 0, z, 1.0), 1 / weights.numel())


def online_label_smoothing_target(target: Tensor, soft: Tensor, alpha: float = 0.5) -> Tensor:
    """Online label smoothing labels, (1 - alpha) e_y + alpha S_y [tax 67 with beta = 1].

    Args:
        target: Class ids, [B] (int64).
        soft: The class averages S of the epoch before, [C, C].
        alpha: The weight of the average, from 0 to 1.

    Returns:
        Soft labels, [B, C].

    Raises:
        ValueError: If alpha is outside 0..1 or target does not hold class ids.
    """
    check_rate("alpha", alpha)
    check_ids(target)
    return perturb_label(target, soft[target], alpha)
