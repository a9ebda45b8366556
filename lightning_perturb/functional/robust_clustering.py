"""Robust clustering: k-means whose samples may be moved at a price, a feature perturbation [tax 10, 11]."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive


def outlier_perturbation(x: Tensor, center: Tensor, lam: float) -> Tensor:
    """The exact minimiser over o of ||x + o - m||_2^2 + lam ||o||_2 [tax 11].

    A sample within lam / 2 of its centre stays; others are moved towards it, to just that distance.

    Args:
        x: Samples, [..., d].
        center: m, broadcasts to x.
        lam: The price of a perturbation, at least 0; 0 moves every sample onto its centre.

    Returns:
        o, in the shape of x - m.

    Raises:
        ValueError: If lam is negative.
    """
    check_positive("lam", lam, zero=True)
    away = x - center
    distance: Tensor = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
    # a sample on its centre has no direction, and needs none
    return -away * (1 - lam / (2 * distance.clamp(min=torch.finfo(x.dtype).tiny))).clamp(min=0)


def robust_clustering_cost(x: Tensor, centers: Tensor, lam: float) -> Tensor:
    """The cost of each sample in each cluster with its perturbation minimised out [tax 11].

    It is the squared distance up to lam / 2, and lam times the distance minus lam^2 / 4 beyond.

    Args:
        x: Samples, [N, d].
        centers: Centres, [C, d].
        lam: The price of a perturbation, at least 0; infinite for plain clustering [tax 10].

    Returns:
        [N, C].
    """
    distance = torch.cdist(x, centers, compute_mode="donot_use_mm_for_euclid_dist")
    if lam == float("inf"):
        return distance.square()
    return torch.where(distance <= lam / 2, distance.square(), lam * distance - lam**2 / 4)


def robust_clustering(x: Tensor, centers: Tensor, lam: float, steps: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters samples of which some may be outliers [tax 11], by turns until nothing changes.

    First every sample takes the cluster and the perturbation that cost it least, then every centre becomes the mean of
    its perturbed samples; the sum of the costs never grows. A centre without samples stays.

    Args:
        x: Samples, float, [N, d].
        centers: The centres to start from, [C, d].
        lam: The price of a perturbation, above 0; infinite for k-means [tax 10].
        steps: The largest number of turns.

    Returns:
        The centres [C, d], each sample's cluster [N] (int64) and its perturbation o [N, d].

    Raises:
        ValueError: If lam is not above 0 or the shapes do not fit.
    """
    if not lam > 0:
        raise ValueError(f"lam={lam!r} must be above 0: at 0 any clustering costs nothing.")
    if x.ndim != 2 or centers.ndim != 2 or x.shape[1] != centers.shape[1]:
        raise ValueError(f"x of {tuple(x.shape)} and centers of {tuple(centers.shape)} must be [N, d] and [C, d].")
    robust = lam != float("inf")
    cluster, o = torch.full((len(x),), -1), torch.zeros_like(x)
    for _ in range(steps):
        nearest = robust_clustering_cost(x, centers, lam).argmin(1)
        moved = outlier_perturbation(x, centers[nearest], lam) if robust else o
        if torch.equal(nearest, cluster) and torch.allclose(moved, o, rtol=0, atol=1e-9):
            break
        cluster, o = nearest, moved
        member = (cluster == torch.arange(len(centers))[:, None]).to(x.dtype)
        means = member @ (x + o) / member.sum(1, keepdim=True).clamp(min=1)
        centers = torch.where(member.any(1, keepdim=True), means, centers)
    return centers, cluster, o
