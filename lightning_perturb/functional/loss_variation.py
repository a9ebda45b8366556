"""How far a perturbation moves the loss, (l' - l) / l, of each class [lpl Figs. 1, 2, 11; tax Fig. 2]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive

#: what the last dimension of :func:`loss_variation_sums` holds
SUMS = ("samples", "plain", "perturbed", "quotients", "counted")


def relative_loss_variation(perturbed: Tensor, plain: Tensor, smallest: float = 1e-5) -> Tensor:
    """(l' - l) / l, above 0 where the perturbation raises the loss.

    Args:
        perturbed: l', losses of any shape.
        plain: l, the losses of the same samples with nothing perturbed, at least 0.
        smallest: Where l is 0 or below this there is no quotient: in float32 it would be one of rounding errors. The
            LPL paper's code leaves out l = 0 alone.

    Returns:
        The quotients in the shape of the losses; NaN where there is none.

    Raises:
        ValueError: If the shapes differ or ``smallest`` is negative.
    """
    check_positive("smallest", smallest, zero=True)
    _check_alike(perturbed, plain)
    known = (plain > 0) & (plain >= smallest)
    return torch.where(known, (perturbed - plain) / torch.where(known, plain, 1.0), torch.nan)


def loss_variation_sums(
    target: Tensor, perturbed: Tensor, plain: Tensor, num_classes: int, smallest: float = 1e-5
) -> Tensor:
    """Sums over the samples of each class, from which :func:`class_loss_variation` makes its variation.

    Sums of several batches, epochs or devices add up.

    Args:
        target: Class ids [B]; soft labels [B, C], which count a sample for its classes by their shares; or, beside
            losses [B, C], multi-hot labels [B, C].
        perturbed: l', the losses of the samples [B], or of samples and classes [B, C].
        plain: l, in the same shape.
        num_classes: C.
        smallest: As of :func:`relative_loss_variation`.

    Returns:
        float64 [P, C, 5]: samples, sum of l, sum of l', sum of (l' - l) / l, and how many samples have that quotient.
        P is 1, or 2 for losses [B, C]: the positive samples of each class, then its negative ones.

    Raises:
        ValueError: If the shapes do not fit or ``smallest`` is negative.
    """
    _check_alike(perturbed, plain)
    plain, perturbed = plain.detach().double(), perturbed.detach().double()
    quotients = relative_loss_variation(perturbed, plain, smallest)
    counted = ~quotients.isnan()
    ones = torch.ones_like(plain)
    columns = torch.stack([ones, plain, perturbed, torch.where(counted, quotients, 0.0), counted.double()], -1)
    if target.shape[:1] != plain.shape[:1] or plain.ndim not in (1, 2):
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit losses of shape {tuple(plain.shape)}. Give both for "
            "the same samples, losses [B] or [B, C]."
        )
    if target.ndim == 1 and plain.ndim == 1:
        return columns.new_zeros(1, num_classes, len(SUMS)).index_add_(1, target, columns[None])
    if target.shape != (len(plain), num_classes) or (plain.ndim == 2 and plain.shape != target.shape):
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit losses of shape {tuple(plain.shape)} and "
            f"num_classes={num_classes}. Give class ids [B], or labels [B, {num_classes}]."
        )
    weights = target.detach().double()
    if plain.ndim == 1:
        return torch.einsum("bc,bk->ck", weights, columns)[None]
    return torch.einsum("pbc,bck->pck", torch.stack([weights, 1 - weights]), columns)


def class_loss_variation(sums: Tensor, average: Literal["sample", "class"] = "sample") -> Tensor:
    """The relative loss variation of each class.

    Args:
        sums: What :func:`loss_variation_sums` gave, [..., 5]; sums over classes give the variation of them together.
        average: ``sample``: the mean of the samples' (l' - l) / l, as in the LPL paper's code. ``class``: the class's
            losses, (sum of l' - sum of l) / sum of l, in which well learnt samples hardly count.

    Returns:
        [...]; NaN for a class without samples, or without a loss.

    Raises:
        ValueError: If ``average`` is unknown or the shape does not fit.
    """
    check_choice("average", average, ("sample", "class"))
    if sums.shape[-1:] != (len(SUMS),):
        raise ValueError(
            f"sums of shape {tuple(sums.shape)} are none of loss_variation_sums, whose last dimension is {len(SUMS)}."
        )
    _, plain, perturbed, quotients, counted = sums.unbind(-1)
    # 0 / 0 is NaN
    return quotients / counted if average == "sample" else torch.where(plain > 0, perturbed / plain - 1, torch.nan)


def _check_alike(perturbed: Tensor, plain: Tensor) -> None:
    if perturbed.shape != plain.shape:
        raise ValueError(
            f"perturbed of shape {tuple(perturbed.shape)} and plain of shape {tuple(plain.shape)} must be losses of "
            "the same samples."
        )
