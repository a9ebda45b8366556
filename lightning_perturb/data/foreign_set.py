"""Batches of a foreign map-style data set, with labels of our own and, where asked for, each sample's index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.batch import Batch
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.sample_label import LABEL_NAMES, label_of, with_label
from lightning_perturb.data.samplers import Draw
from lightning_perturb.data.seeded import generators_kept, seed_generators


class ForeignSet(Dataset[Any]):
    """Fetches a batch sample by sample and collates it as the foreign loader did.

    Labels are exchanged before the collate function sees them. The set's own random augmentation draws from the global
    generators, which are seeded for each sample from (seed, epoch, view, index) and for the collate function from the
    first index of the batch: any number of workers and any resume sees the same.

    Args:
        dataset: The foreign set.
        true_labels: Its labels ``[N]``, or multi-hot ``[N, C]``.
        labels: What they are exchanged for.
        key: Where the label of a sample stands.
        collate: The foreign loader's collate function.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        dataset: Any,
        true_labels: Labels,
        labels: Labels,
        key: int | str,
        collate: Callable[[list[Any]], Any],
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.true_labels = true_labels
        self.labels = labels
        self.key = key
        self.collate = collate
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw | int | None) -> Any:
        # a step without a meta batch has None
        return None if draw is None else self.fetch(_as_draw(draw))

    def fetch(self, draw: Draw) -> Any:
        """The foreign batch; the global generators stay as they were."""
        with generators_kept():
            return self.collated(draw)

    def collated(self, draw: Draw, view: int = 0) -> Any:
        """The foreign batch of one view."""
        samples = list(self.samples(draw, view))
        seed_generators(self._seeds(f"collate/{view}", draw.epoch, draw.names[:1])[0])
        return self.collate(samples)

    def samples(self, draw: Draw, view: int = 0) -> Iterator[Any]:
        """Samples with their labels exchanged; leaves the global generators seeded.

        Raises:
            ValueError: If the set gives another label than it gave before.
        """
        seeds = self._seeds(f"sample/{view}", draw.epoch, draw.names)
        for position, seed in zip(draw.positions.tolist(), seeds, strict=True):
            seed_generators(seed)
            sample = self.dataset[position]
            true, given = self.true_labels[position], self.labels[position]
            found = label_of(sample[self.key], f"training sample {position}")
            if not np.array_equal(found, true):
                raise ValueError(
                    f"{type(self.dataset).__name__} gives training sample {position} the label {found}, but gave "
                    f"{true} when all labels were read. Let it return a fixed label for each index, "
                    "equal to its targets."
                )
            new = given if given.ndim else int(given)
            yield sample if np.array_equal(given, true) else with_label(sample, self.key, new)

    def _seeds(self, stream: str, epoch: int, names: Tensor) -> list[int]:
        seeds: list[int] = keyed_random.integers(self.seed, stream, epoch, names, 2**32).reshape(-1).tolist()
        return seeds


class IndexedSet(ForeignSet):
    """Fetches :class:`Indexed` batches, for foreign transfer hooks that want the batch that they know.

    Args:
        *args: As of :class:`ForeignSet`.
        views: Fetches of each sample, with independent augmentation.
        domains: Domain ids of all samples ``[N]``, or None.
    """

    def __init__(self, *args: Any, views: int = 1, domains: Tensor | None = None) -> None:
        super().__init__(*args)
        self.views = views
        self.domains = domains

    def fetch(self, draw: Draw) -> Any:
        """The foreign batches of all views, and the index beside them."""
        with generators_kept():
            views = [self.collated(draw, view) for view in range(self.views)]
        given = torch.from_numpy(self.labels)[draw.positions]
        domains = None if self.domains is None else self.domains[draw.positions]
        return Indexed(views, draw.positions, _label_place(views[0], self.key, given), draw.keys, domains)


class BatchSet(IndexedSet):
    """Fetches a :class:`~lightning_perturb.core.Batch`.

    Args:
        *args: As of :class:`ForeignSet`.
        views: Fetches of each sample, with independent augmentation.
        domains: Domain ids of all samples ``[N]``, or None.
    """

    def fetch(self, draw: Draw) -> Any:
        """The batch that our methods read."""
        return super().fetch(draw).batch()


@dataclass
class Indexed:
    """Foreign batches on their way to the device, and the index beside them.

    Attributes:
        views: One batch of the foreign layout for each view of the same samples.
        index: Position of each sample in the full training set ``[B]``.
        place: Where the labels stand in such a batch.
        keys: What names the samples in random draws ``[B]``, or None where the index does.
        domains: Domain of each sample ``[B]``, or None.
    """

    views: list[Any]
    index: Tensor
    place: int | str
    keys: Tensor | None = None
    domains: Tensor | None = None

    def map(self, function: Callable[[Any], Any]) -> Indexed:
        """The same samples with every foreign batch changed."""
        return replace(self, views=[function(view) for view in self.views])

    def to(self, device: Any, **_: Any) -> Indexed:
        """Moves the foreign batches; the index follows the labels in the end."""
        return self.map(lambda view: move_data_to_device(view, device))

    def pin_memory(self) -> Indexed:
        """Called by a DataLoader with ``pin_memory=True``."""
        return self.map(pin_memory)

    def batch(self) -> Batch:
        """The batch that our methods read."""
        batches = [_as_batch(view, self.place) for view in self.views]
        first = batches[0]
        x = first.x if len(batches) == 1 else tuple(batch.view for batch in batches)
        # one label per sample may stand in a column; cross-entropy wants int64 ids
        y = first.y.reshape(len(self.index)) if first.y.numel() == len(self.index) else first.y
        y = y if y.is_floating_point() else y.long()
        beside = {"sample_key": self.keys, "domain": self.domains}
        known = {name: value.to(y.device, non_blocking=True) for name, value in beside.items() if value is not None}
        extra = {**first.extra, **known}
        return Batch(x, y, self.index.to(y.device, non_blocking=True), extra)  # type: ignore[arg-type]


def _as_draw(draw: Draw | int) -> Draw:
    # Lightning's overfit_batches puts a sampler of single positions in place
    return Draw(0, torch.tensor([draw])) if isinstance(draw, int) else draw


def _label_place(batch: Any, key: int | str, given: Tensor) -> int | str:
    """Where a collated batch holds the given labels in the order of its samples."""
    if isinstance(batch, Batch):
        places: list[Any] = ["y"]
    elif isinstance(batch, Mapping):
        places = [name for name in (key, *LABEL_NAMES) if name in batch]
    elif isinstance(batch, (tuple, list)):
        places = sorted(range(len(batch)), key=lambda place: (place != key, place != 1, place))
    else:
        places = []
    for place in places:
        y = batch.y if isinstance(batch, Batch) else batch[place]
        if (
            isinstance(y, Tensor)
            and y.numel() == given.numel()
            and torch.equal(y.reshape(given.shape).to(given), given)
        ):
            return place  # type: ignore[no-any-return]
    raise ValueError(
        f"The collate_fn of the wrapped loader returned a {type(batch).__name__} in which the labels of its samples "
        "do not stand in order, so that no sample can be named by its index. Let it return (x, y) or a mapping, "
        "neither sort, drop nor mix samples, and leave mixing to the method."
    )


def _as_batch(batch: Any, place: int | str) -> Batch:
    """A foreign batch as ours, still without index; what is neither input nor label becomes ``extra``."""
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping) and place in batch:
        return Batch.of({**{name: value for name, value in batch.items() if name != place}, "y": batch[place]})
    if isinstance(batch, (tuple, list)) and isinstance(place, int) and place < len(batch):
        (_, x), *others = [(number, part) for number, part in enumerate(batch) if number != place]
        extra = {f"part_{number}": part for number, part in others if isinstance(part, Tensor)}
        pair = Batch.of((dict(x) if isinstance(x, Mapping) else x, batch[place]))
        return replace(pair, extra=extra)
    raise ValueError(
        f"A transfer hook of the wrapped data module returned a {type(batch).__name__} without labels at {place!r}, "
        "where its batch had them. Let the hook keep the layout of the batch."
    )
