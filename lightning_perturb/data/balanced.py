"""An order in which every batch holds every class alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.data.labels import Labels
from lightning_perturb.data.samplers import Draw, EpochSampler


class BalancedSampler(EpochSampler):
    """Shuffled batches in which the classes of a balanced set take turns; every pass draws a new order.

    Args:
        positions: Positions of the samples in the full original training set ``[N]``.
        labels: Their class ids ``[N]``.
        batch_size: Samples in a batch of this rank.
        **kwargs: As of :class:`~lightning_perturb.data.samplers.EpochSampler`.
    """

    def __init__(self, positions: Tensor, labels: Labels, batch_size: int, **kwargs: Any) -> None:
        super().__init__(positions, batch_size, **kwargs)
        self.labels = labels

    def order(self, epoch: int) -> Tensor:
        """The first sample of every class in random order, then the second of every class, and so on."""
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        labels = self.labels[shuffled]
        by_class = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[by_class], labels[by_class])
        turn = np.empty_like(by_class)
        turn[by_class] = np.arange(len(labels)) - starts
        return self.positions[torch.from_numpy(shuffled[np.argsort(turn, kind="stable")])]

    def __iter__(self) -> Iterator[Draw]:
        draws = super().__iter__()
        # nobody else tells a loader of its own its epoch
        self.epoch += 1
        return draws
