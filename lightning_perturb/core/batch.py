"""The one batch type of the training side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Input = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def _map_input(x: Input, function: Any) -> Input:
    if isinstance(x, Tensor):
        return function(x)  # type: ignore[no-any-return]
    if isinstance(x, tuple):
        return tuple(function(view) for view in x)
    return {name: function(value) for name, value in x.items()}


@dataclass
class Batch:
    """A training batch.

    Attributes:
        x: Input: a tensor ``[B, ...]``, a tuple of augmented views of the same samples, or a mapping (text).
        y: Given labels: class ids ``[B]``, soft or multi-hot labels ``[B, C]``.
        index: Position of each sample in the full original training set ``[B]``, or None.
        extra: Further tensors that travel with the samples (masks, mixing weights, groups, perturbation norms).
    """

    x: Input
    y: Tensor
    index: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def view(self) -> Tensor | dict[str, Tensor]:
        """The first view, or the input itself where there is only one."""
        return self.x[0] if isinstance(self.x, tuple) else self.x

    def copy(self) -> Batch:
        """The same tensors in a batch of their own, whose ``extra`` can be filled."""
        return replace(self, extra=dict(self.extra))

    def with_input(self, x: Input) -> Batch:
        """The same samples with another input."""
        return replace(self, x=x)

    def rows(self, which: slice | Tensor) -> Batch:
        """Some of the samples, with all that belongs to them."""
        return self._map(lambda t: t[which])

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Moves every tensor; Lightning finds this method when it moves a batch to the device."""
        return self._map(lambda t: t.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Called by a DataLoader with ``pin_memory=True``."""
        return self._map(lambda t: t.pin_memory())

    def _map(self, function: Any) -> Batch:
        index = None if self.index is None else function(self.index)
        extra = {name: function(value) for name, value in self.extra.items()}
        return Batch(_map_input(self.x, function), function(self.y), index, extra)

    @staticmethod
    def of(batch: Any) -> Batch:
        """Reads ``(x, y)``, ``(x, y, index)``, a mapping or a :class:`Batch`.

        Args:
            batch: What the loader gave. A mapping has the keys ``x`` (or ``input``, ``image``) and ``y`` (or
                ``label``, ``labels``, ``target``), and may have ``index``; further tensors become ``extra``. Without an
                input they are the input (tokenised text), but for ``domain``.

        Raises:
            ValueError: If the batch has another form.
        """
        if isinstance(batch, Batch):
            return batch
        if isinstance(batch, Mapping):
            return _of_mapping(batch)
        if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
            x, y = batch[0], batch[1]
            index = batch[2] if len(batch) == 3 else None
            if isinstance(x, list):
                x = tuple(x)
            if isinstance(y, Tensor) and (index is None or isinstance(index, Tensor)):
                return Batch(x, y, index)
            raise ValueError(
                f"The labels of the batch are of type {type(y).__name__}, its index of type {type(index).__name__}; "
                "both must be tensors. Let the loader collate them."
            )
        raise ValueError(
            f"A batch of type {type(batch).__name__} is not understood. Yield (x, y), (x, y, index), "
            "a mapping with the keys 'x' and 'y', or a lightning_perturb Batch."
        )

    @staticmethod
    def input_of(batch: Any) -> tuple[Tensor | dict[str, Tensor], Tensor | None]:
        """Input (the first view of it) and index of a batch that may have no labels, as prediction reads it.

        Args:
            batch: A bare input, ``(x,)``, or what :meth:`of` reads, where a mapping needs no labels.
        """
        if isinstance(batch, Tensor):
            return batch, None
        if isinstance(batch, (tuple, list)) and len(batch) == 1:
            return batch[0], None
        if isinstance(batch, Mapping) and not any(name in batch for name in _LABEL_NAMES):
            batch = {**batch, "y": torch.empty(0)}
        found = Batch.of(batch)
        return found.view, found.index


_LABEL_NAMES = ("y", "label", "labels", "target")


def _of_mapping(batch: Mapping[str, Any]) -> Batch:
    rest = dict(batch)

    def take(*names: str) -> Any:
        for name in names:
            if name in rest:
                return rest.pop(name)
        return None

    x, y, index = take("x", "input", "image"), take(*_LABEL_NAMES), take("index")
    if y is None:
        raise ValueError(f"A batch with the keys {sorted(batch)} has no labels. Name them 'y', 'label' or 'target'.")
    if x is None:
        # tokenised text: what is left is the input of the network
        domain = {"domain": rest.pop("domain")} if "domain" in rest else {}
        x, rest = {name: value for name, value in rest.items() if isinstance(value, Tensor)}, domain
    extra = {name: value for name, value in rest.items() if isinstance(value, Tensor)}
    return Batch(tuple(x) if isinstance(x, list) else x, torch.as_tensor(y), index, extra)
