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
    """Shuffled batches in which the classes take turns, as often as they are large; every pass draws a new order.

    Where the set is balanced, every batch is. Where it is not, every batch has the set's proportions.

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
        """The first sample of every class in random order, then the second of every class, and so on.

        The samples of a class that has fewer than others are spread evenly over the pass.
        """
        shuffled = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        labels = self.labels[shuffled]
        by_class = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[by_class], labels[by_class])
        sizes = np.searchsorted(labels[by_class], labels[by_class], side="right") - starts
        turn = np.empty(len(labels))
        turn[by_class] = (np.arange(len(labels)) - starts + 0.5) / sizes
        return self.positions[torch.from_numpy(shuffled[np.argsort(turn, kind="stable")])]

    def __iter__(self) -> Iterator[Draw]:
        draws = super().__iter__()
        # nobody else tells a loader of its own its epoch
        self.epoch += 1
        return draws


class ClassAwareSampler(EpochSampler):
    """From an epoch on, batches into which every class is drawn alike often: rare samples come again and again.

    The classes take turns in random order. The samples of a class come in random order, all of them before one comes
    again. An epoch has as many samples as before, and what they are follows from seed and epoch alone. A sample that
    comes again is augmented anew.

    Args:
        positions: Positions of the samples in the full original training set ``[N]``.
        labels: Their given class ids ``[N]``, or ids of anything else that is to come alike often, such as groups; or
            multi-hot labels ``[N, C]``: a class then draws among its positives.
        batch_size: Samples in a batch of this rank.
        balanced_from: The first such epoch.
        **kwargs: As of :class:`~lightning_perturb.data.samplers.EpochSampler`.
    """

    def __init__(
        self, positions: Tensor, labels: Labels, batch_size: int, *, balanced_from: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(positions, batch_size, **kwargs)
        self.balanced_from = balanced_from
        if labels.ndim == 1:
            by_class = np.argsort(labels, kind="stable")
            members = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
        else:
            members = [np.flatnonzero(column) for column in labels.T]
        self._members = [own for own in members if len(own)]

    def order(self, epoch: int) -> Tensor:
        """Positions of as many samples as there are, in the order of an epoch."""
        if epoch < self.balanced_from or not self._members:
            return super().order(epoch)
        generator = np.random.default_rng([self.seed, epoch])
        total, classes = len(self.positions), len(self._members)
        turns = np.tile(np.arange(classes), (-(-total // classes), 1))
        drawn = generator.permuted(turns, axis=1).reshape(-1)[:total]
        quotas = np.bincount(drawn, minlength=classes)
        picks = [_rounds(own, int(quota), generator) for own, quota in zip(self._members, quotas, strict=True)]
        order = np.empty(total, dtype=np.int64)
        order[np.argsort(drawn, kind="stable")] = np.concatenate(picks)
        return self.positions[torch.from_numpy(order)]

    def keys(self, order: Tensor) -> Tensor | None:
        """The position of a sample that comes first, another number each time that it comes again."""
        if self.epoch < self.balanced_from:
            return None
        positions = order.numpy()
        by_position = np.argsort(positions, kind="stable")
        grouped = positions[by_position]
        before = np.empty_like(by_position)
        before[by_position] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
        return order + (torch.from_numpy(before) << _ABOVE_POSITIONS)


# no training set has so many samples (2 ^ 40)
_ABOVE_POSITIONS = 40


def _rounds(members: Labels, number: int, generator: np.random.Generator) -> Labels:
    """So many of some samples, all of them in random order before one comes again."""
    rounds = -(-number // len(members))
    return np.concatenate([members[:0], *(generator.permutation(members) for _ in range(rounds))])[:number]


class MetaSampler(BalancedSampler):
    """The endless stream of meta batches beside the training batches: no two epochs alike.

    The stream is pass after pass through the meta set, each in a new order. The batches of all ranks at one step are
    neighbours in it, so that together they are the batch that one process would draw. Where it stands follows from
    epoch and batch alone: any resume goes on exactly.

    It has a place for every step of training, so that a step has the same meta batch whatever the others read. Where a
    step reads none, the order holds None, and nothing is fetched.

    Args:
        positions: Positions of the meta samples in the full original training set ``[M]``.
        labels: Their class ids ``[M]``.
        batch_size: Samples in a meta batch of this rank; may exceed M.
        training: The order of training batches that they go along with.
        from_epoch: First epoch with meta batches.
        every: They stand beside every so manieth training batch of such an epoch, from the first on.
    """

    def __init__(
        self,
        positions: Tensor,
        labels: Labels,
        batch_size: int,
        training: EpochSampler,
        *,
        from_epoch: int = 0,
        every: int = 1,
    ) -> None:
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
        self.from_epoch = from_epoch
        self.every = every

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        # eager, as in EpochSampler: the epoch is read when the iterator is made
        skip = self.skip if self.epoch == self.first_epoch else 0
        start = self.epoch * len(self)
        reads = [self.epoch >= self.from_epoch and place % self.every == 0 for place in range(len(self))]
        return iter([self._draw(start + place) if reads[place] else None for place in range(skip, len(self))])

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
