"""Group DRO: weights of groups that follow their losses (Sagawa et al., 2020), and fixed ones by frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._classes import present_classes
from lightning_perturb.functional.domain_risks import domain_means


def group_dro_step(log_weight: Tensor, losses: Tensor, step_size: float, present: Tensor | None = None) -> Tensor:
    """One step of exponentiated gradient ascent: q_g exp(eta l_g) over its sum.

    In logarithms, since a weight that is rounded to 0 would never come back.

    Args:
        log_weight: log q, [G]; -inf for groups that do not count.
        losses: The groups' losses l, [G], taken as constants.
        step_size: eta, at least 0.
        present: Which groups have a loss, [G] in bool; the others keep their weight relative to each other. None: all.

    Returns:
        log q after the step, [G], detached, in the dtype of log_weight.

    Raises:
        ValueError: If the step size is negative or the shapes do not fit.
    """
    check_positive("step_size", step_size, zero=True)
    present = torch.ones_like(losses, dtype=torch.bool) if present is None else present
    if log_weight.ndim != 1 or not log_weight.shape == losses.shape == present.shape:
        raise ValueError(
            f"log_weight of shape {tuple(log_weight.shape)}, losses of {tuple(losses.shape)} and present of "
            f"{tuple(present.shape)} must all be [G]."
        )
    with torch.no_grad():
        step = torch.where(present, step_size * losses.to(log_weight.dtype), 0.0)
        return torch.log_softmax(log_weight + step, 0)


def group_risks(losses: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """The mean loss of each group in a batch, and how many samples it has there.

    Args:
        losses: Of each sample, [B].
        group: Group ids, [B] in 0..G-1.
        num_groups: G.

    Returns:
        The means, [G], 0 for absent groups, and the numbers, [G]; float32 for half-precision losses.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    means = domain_means(losses, group)
    present, _, sizes = present_classes(group)
    empty = means.new_zeros(num_groups)
    return empty.index_copy(0, present, means), empty.index_copy(0, present, sizes.to(means.dtype))


def generalization_adjustment(counts: Tensor, adjustment: float) -> Tensor:
    """What is added to the loss of a group for the few samples that it is known by, C / sqrt(n_g).

    Args:
        counts: The numbers of training samples n_g, [G].
        adjustment: C, at least 0; the paper takes 0 to 5.

    Returns:
        [G], float64; 0 for groups without samples.

    Raises:
        ValueError: If the adjustment is negative.
    """
    check_positive("adjustment", adjustment, zero=True)
    return torch.where(counts > 0, adjustment / counts.double().clamp(min=1).sqrt(), 0.0)


def balanced_group_weights(counts: Tensor) -> Tensor:
    """Weights of samples with which every group has the same part in the mean loss of the training set, N / (G n_g).

    Args:
        counts: The numbers of training samples n_g of the groups, of any shape.

    Returns:
        In the shape of counts, float64, of mean 1 over the samples; 0 for groups without samples, which are no part
        of the G.

    Raises:
        ValueError: If there is no sample at all.
    """
    known = counts > 0
    if not known.any():
        raise ValueError("counts are 0 for every group. Give the numbers of training samples of the groups.")
    share = counts.sum().double() / known.sum()
    return torch.where(known, share / counts.double().clamp(min=1), 0.0)
