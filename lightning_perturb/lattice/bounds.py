"""Bounds of categories that differ, as LPL has them."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core.plain import Plain
from lightning_perturb.functional import confidence_bounds, frequency_bounds
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.site import Site


class Bounds(Plain):
    """How far the perturbation of each category may go.

    Attributes:
        needs_counts: Whether it reads the class frequencies.
    """

    needs_counts: ClassVar[bool] = False

    def radii(self, eps: float, value: Tensor, site: Site, groups: Groups) -> Tensor:
        """The bounds of the categories in the batch ``[G]``.

        Args:
            eps: The smallest bound.
            value: The target's value as the cell finds it.
            site: Where the cell acts.
            groups: The categories.
        """
        raise NotImplementedError(f"{type(self).__name__} must say the bounds.")


class ConfidenceBounds(Bounds):
    """ε + Δε |τ - q_c|, with q_c the mean confidence of a class in the batch and τ its mean [lpl 33, balanced data].

    Args:
        delta: Δε; the paper searches {0.1, 0.2}.
    """

    def __init__(self, delta: float = 0.1) -> None:
        check_positive("delta", delta, zero=True)
        self.delta = delta

    def radii(self, eps: float, value: Tensor, site: Site, groups: Groups) -> Tensor:
        """By the distance from the threshold of :class:`~lightning_perturb.lattice.ConfidentClasses`."""
        with torch.no_grad():
            confidence = groups.mean((-site.losses(value)).exp())
        return confidence_bounds(confidence, torch.ones_like(confidence), confidence.mean(), eps, self.delta)


class FrequencyBounds(Bounds):
    """ε + Δε n_c / n_1 in the head, ε + Δε n_C / n_c in the tail: largest at both ends [lpl 33, long tails].

    Args:
        delta: Δε; the paper searches {1, 2, 3}.
        share: Share of the classes that are the head.
        head_scale: Factor of the head's Δε; the code has 0.6 for CIFAR-10, 0.2 for CIFAR-100.
    """

    needs_counts = True

    def __init__(self, delta: float = 1.5, share: float = 0.5, head_scale: float = 1.0) -> None:
        check_positive("delta", delta, zero=True)
        check_rate("share", share)
        check_positive("head_scale", head_scale, zero=True)
        self.delta = delta
        self.share = share
        self.head_scale = head_scale

    def radii(self, eps: float, value: Tensor, site: Site, groups: Groups) -> Tensor:
        """By the number of samples of the classes."""
        counts = site.module.class_counts
        head = int(self.share * len(counts) + 1e-9)
        return frequency_bounds(counts, head, eps, self.delta, self.head_scale)[groups.ids]
