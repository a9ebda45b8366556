"""Sums over the samples of a domain."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._classes import present_classes
from lightning_perturb.functional._precision import full_precision


def check_domain(domain: Tensor, batch: int) -> None:
    """Raises a ValueError unless domain holds one whole number for each sample, [B]."""
    if domain.shape != (batch,) or domain.is_floating_point() or domain.is_complex():
        raise ValueError(
            f"domain has the shape {tuple(domain.shape)} and the dtype {domain.dtype}. Give domain ids of shape "
            f"[{batch}]."
        )


def members(domain: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Which samples are of which of the K domains in a batch, [K, B], and how many are, [K]; in the dtype of like."""
    present, _, sizes = present_classes(domain)
    return (present.unsqueeze(1) == domain).to(like.dtype), sizes.to(like.dtype)


def totals(who: Tensor, values: Tensor) -> Tensor:
    """The sums of values [B] or [B, A] over the samples of each domain, [K] or [K, A]."""
    # a product with the indicator sums in the same order in every run
    with full_precision(values):
        return who @ values


def repeated(features: Tensor, domain: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The part of a batch whose domains have at least two samples in it, in which features vary.

    Args:
        features: [B, A].
        domain: Domain ids, [B].

    Returns:
        The features left, [B', A], each one's domain among the K left, [B'], and :func:`members` of them.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    if features.ndim != 2:
        raise ValueError(f"features have the shape {tuple(features.shape)}. Give [B, A].")
    check_domain(domain, len(features))
    _, place, sizes = present_classes(domain)
    left = sizes[place] > 1
    features = features[left]
    place = present_classes(place[left])[1]
    return features, place, *members(place, features)
