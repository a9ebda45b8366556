"""The data set behind every training loader: whole batches, keyed by their epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.batch import Batch
from lightning_perturb.data.augment import Augmentation
from lightning_perturb.data.image_files import ImageFiles
from lightning_perturb.data.samplers import Draw
from lightning_perturb.data.texts import Texts

Inputs = Tensor | ImageFiles | Texts


def joined(first: Inputs, second: Inputs) -> Inputs:
    """The samples of two sources in one, those of the second behind those of the first.

    Raises:
        ValueError: If they are of different kinds or shapes.
    """
    kinds = _kind(first), _kind(second)
    if isinstance(first, ImageFiles) and isinstance(second, ImageFiles) and first.size == second.size:
        return first + second
    if isinstance(first, Tensor) and isinstance(second, Tensor) and kinds[0] == kinds[1]:
        return torch.cat([first, second])
    raise ValueError(
        f"Training samples are {kinds[0]}, clean ones {kinds[1]}, which cannot stand behind them. Give both as "
        "tensors, or as image files, of one shape."
    )


def _kind(x: Inputs) -> str:
    return type(x).__name__ if isinstance(x, Texts) else f"{x.dtype} of shape {tuple(x.shape[1:])}"


class BatchedSet(Dataset[Any]):
    """Fetches a batch at once.

    Args:
        x: All inputs ``[N, ...]``.
        y: All labels ``[N]`` or ``[N, C]``.
        augment: Augmentation of uint8 images, or None.
        views: Independently augmented views of each sample.
        seed: Seed of the augmentation.
        pairs: Serve ``(x, y)`` instead of a :class:`Batch`, for modules of other projects.
        domains: All domain ids ``[N]``, or which domains apply ``[N, D]``, served as ``extra["domain"]``; None where
            samples have none.
    """

    def __init__(
        self,
        x: Inputs,
        y: Tensor,
        augment: Augmentation | None = None,
        views: int = 1,
        seed: int = 0,
        pairs: bool = False,
        domains: Tensor | None = None,
    ) -> None:
        self.x = x
        self.y = y
        self.augment = augment
        self.views = views
        self.seed = seed
        self.pairs = pairs
        self.domains = domains

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, draw: Draw | int | None) -> Batch | tuple[Tensor, Tensor] | None:
        if isinstance(draw, int):
            draw = Draw(0, torch.tensor([draw]))
        if draw is None:
            # a step without a meta batch
            return None
        # several times faster than x[positions] on uint8
        x, y = self.x.index_select(0, draw.positions), self.y.index_select(0, draw.positions)
        views = tuple(self._view(x, draw, number) for number in range(self.views))
        if self.pairs:
            return views[0], y
        extra = {} if draw.keys is None else {"sample_key": draw.keys}
        if self.domains is not None:
            extra["domain"] = self.domains.index_select(0, draw.positions)
        return Batch(views if self.views > 1 else views[0], y, draw.positions, extra)

    def _view(self, x: Tensor, draw: Draw, number: int) -> Tensor:
        if self.augment is None:
            return x
        stream = f"augment/{number}"
        return self.augment(x, keyed_random.uniform(self.seed, stream, draw.epoch, draw.names, self.augment.draws))


class ResumableLoader(DataLoader[Any]):
    """A loader whose place in the epoch is kept by the data module.

    Lightning warns at a resume inside an epoch unless the loader has these two methods.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module keeps epoch and batch."""
        return {"kept_by": "datamodule"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do, see :meth:`state_dict`."""


def as_is(batch: Any) -> Any:
    """The collate function of sets that fetch whole batches; a named function, so that spawned workers find it."""
    return batch
