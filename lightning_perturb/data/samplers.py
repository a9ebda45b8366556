"""Samplers that yield whole batches and know their epoch, so that any rank, worker and resume sees the same order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


@dataclass(frozen=True)
class Draw:
    """One batch to fetch.

    Attributes:
        epoch: Keys the augmentation.
        positions: Which samples ``[B]``.
        keys: What names them in random draws ``[B]``, where a sample comes more than once in an epoch; None where the
            positions do.
    """

    epoch: int
    positions: Tensor
    keys: Tensor | None = None

    @property
    def names(self) -> Tensor:
        """What names the samples in random draws ``[B]``."""
        return self.positions if self.keys is None else self.keys


class EpochSampler(DistributedSampler[Any]):
    """Shuffled training batches of one rank.

    It is a DistributedSampler also on one rank: Lightning would otherwise put its own in place under DDP. Rank r takes
    every world_size-th sample, so the union of the ranks' batches is the batch that one process would draw.

    Args:
        positions: Positions of the training samples in the full original training set ``[N]``.
        batch_size: Samples in a batch of this rank.
        seed: Seed of the order.
        shuffle: Draw a new order every epoch; False keeps index order.
        drop_last: Leave out a last batch that is not full.
        rank: This rank.
        world_size: Number of ranks; where they do not divide the set, the first samples of the order come twice.
        epoch: First epoch.
        skip: Batches of the first epoch that were trained before a resume.
        current_epoch: Tells the epoch that :meth:`set_epoch` sets, instead of its argument.
    """

    def __init__(
        self,
        positions: Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        skip: int = 0,
        current_epoch: Callable[[], int] | None = None,
    ) -> None:
        # the parent takes any sized object for the data set; only its type and epoch are used
        super().__init__(positions, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.positions = positions
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.epoch = epoch
        self.first_epoch = epoch
        self.skip = skip
        self._current_epoch = current_epoch

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch of the next iterator; Lightning calls it."""
        # Lightning's argument is one too high in a run with max_steps that resumed from the end of an epoch
        self.epoch = epoch if self._current_epoch is None else self._current_epoch()

    def __len__(self) -> int:
        per_rank = math.ceil(len(self.positions) / self.num_replicas)
        return per_rank // self.batch_size if self.drop_last else math.ceil(per_rank / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Positions of all samples in the order of an epoch, before they are dealt to ranks."""
        if not self.shuffle:
            return self.positions
        permutation = np.random.default_rng([self.seed, epoch]).permutation(len(self.positions))
        return self.positions[torch.from_numpy(permutation)]

    def keys(self, order: Tensor) -> Tensor | None:
        """What names the samples of an order in random draws, where positions do not: they come more than once."""
        return None

    def __iter__(self) -> Iterator[Draw]:
        # eager, not a generator: the epoch is read when the iterator is made, with and without workers
        order = self.order(self.epoch)
        keys = self.keys(order)
        # by epoch, not once: a loader with workers makes its first iterator twice
        first = self.skip if self.epoch == self.first_epoch else 0
        batches = self._batches(order)
        names: tuple[Tensor | None, ...] = (None,) * len(batches) if keys is None else self._batches(keys)
        return iter([Draw(self.epoch, *batch) for batch in zip(batches, names, strict=True)][first:])

    def _batches(self, order: Tensor) -> tuple[Tensor, ...]:
        """This rank's batches of an order."""
        missing = -len(order) % self.num_replicas
        again = order[torch.arange(missing) % max(len(order), 1)]
        mine = torch.cat([order, again])[self.rank :: self.num_replicas]
        return torch.split(mine, self.batch_size)[: len(self)]


class EvaluationSampler(DistributedSampler[Any]):
    """Every sample exactly once, in order: ranks share the set without padding, in equally many batches.

    Args:
        positions: Positions to serve ``[N]``.
        batch_size: Largest batch.
        rank: This rank.
        world_size: Number of ranks.
    """

    def __init__(self, positions: Tensor, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(positions, num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.positions = positions
        self.batch_size = batch_size

    def __len__(self) -> int:
        # the same on every rank, whose collectives must pair up
        return math.ceil(math.ceil(len(self.positions) / self.num_replicas) / self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        mine = self.positions.tensor_split(self.num_replicas)[self.rank]
        if len(self) == 0:
            return iter([])
        return iter([Draw(0, batch) for batch in mine.tensor_split(len(self))])
