"""Orders in which every batch holds every class alike."""

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


class MetaSampler(BalancedSampler):
    """The endless stream of meta batches beside the training batches: one for each, no two epochs alike.

    The stream is pass after pass through the meta set, each in a new order. The batches of all ranks at one step are
    neighbours in it, so that together they are the batch that one process would draw. Where it stands follows from
    epoch and batch alone: any resume goes on exactly.

    Args:
        positions: Positions of the meta samples in the full original training set ``[M]``.
        labels: Their class ids ``[M]``.
        batch_size: Samples in a meta batch of this rank; may exceed M.
        training: The order of training batches that they go along with.
    """

    def __init__(self, positions: Tensor, labels: Labels, batch_size: int, training: EpochSampler) -> None:
        super().__init__(
            positions,
            labels,
            batch_size,
            seed=training.seed,
            rank=training.rank,
            world_size=training.num_replicas,
            epoch=training.epoch,
            skip=training.skip,
            current_epoch=training._current_epoch,
        )
        self._length = len(training)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        # eager, as in EpochSampler: the epoch is read when the iterator is made
        skip = self.skip if self.epoch == self.first_epoch else 0
        start = self.epoch * len(self)
        return iter([self._draw(step) for step in range(start + skip, start + len(self))])

    def _draw(self, step: int) -> Draw:
        first = (step * self.num_replicas + self.rank) * self.batch_size
        places = np.arange(first, first + self.batch_size)
        passes, inside = np.divmod(places, len(self.positions))
        parts = [self._pass(int(number))[torch.from_numpy(inside[passes == number])] for number in np.unique(passes)]
        # the step keys the augmentation: a sample looks different each time it comes
        return Draw(step, torch.cat(parts))

    def _pass(self, number: int) -> Tensor:
        if self._kept is None or self._kept[0] != number:
            self._kept = number, self.order(number)
        return self._kept[1]

    _kept: tuple[int, Tensor] | None = None
