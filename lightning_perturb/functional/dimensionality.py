"""D2L: the local intrinsic dimensionality of features, and how its growth paces the trust in given labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive

# below this share of the largest distance a neighbour counts as this near, as in the published code
_NEAREST = 1e-8


def local_dimensionality(features: Tensor, neighbours: int = 20) -> Tensor:
    """The local intrinsic dimensionality of each sample among the others of a batch (Ma et al., 2018).

    The maximum-likelihood estimate -(1/k sum_i log(r_i / r_k))^-1 from the distances r_1 <= ... <= r_k to the k nearest
    other samples.

    Args:
        features: Features, [B, A].
        neighbours: k, at least 2; of a smaller batch all other samples.

    Returns:
        The estimates, [B], float64, detached; infinite where all k neighbours are equally far, NaN where there are less
        than two or all are in the same place.

    Raises:
        ValueError: If neighbours is below 2 or features are not [B, A].
    """
    if neighbours < 2:
        raise ValueError(f"neighbours={neighbours!r} tells no growth of distances. Give at least 2.")
    if features.ndim != 2:
        raise ValueError(f"features have the shape {tuple(features.shape)}. Give one row for each sample, [B, A].")
    values = features.detach().double()
    count = min(neighbours, len(values) - 1)
    if count < 2:
        return values.new_full((len(values),), math.nan)
    # not by a matrix product, which loses small distances
    distances = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(math.inf)
    nearest = distances.topk(count, dim=1, largest=False).values.sort(1).values
    shares = nearest / nearest[:, -1:]
    return -1.0 / shares.clamp(min=_NEAREST).log().mean(1)


def turns(history: Tensor, latest: float) -> bool:
    """Whether the dimensionality has begun to grow: the latest is above the mean of those before by two deviations.

    Args:
        history: The dimensionalities of the epochs before, [W]; their standard deviation is that of the population.
        latest: That of the present epoch.

    Returns:
        Whether it has.
    """
    return latest - float(history.mean()) > 2.0 * float(history.std(correction=0))


def paced_trust(progress: float, dimension: float, lowest: float) -> float:
    """The trust in given labels, alpha = exp(-lambda LID / min LID).

    Args:
        progress: lambda, the share of the training that is done, at least 0.
        dimension: The dimensionality of the present epoch, above 0.
        lowest: The lowest up to now, above 0.

    Returns:
        alpha, in (0, 1]: the weight of the given label, the rest is the predicted class'.

    Raises:
        ValueError: If an argument is outside its range.
    """
    check_positive("progress", progress, zero=True)
    check_positive("dimension", dimension)
    check_positive("lowest", lowest)
    return math.exp(-progress * dimension / lowest)
