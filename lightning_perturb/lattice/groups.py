"""Who shares one perturbation: a sample, the samples of a category, or the corpus [tax 42-44]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.core.distributed import gather_batch, gather_rows, sum_over_ranks


class Groups:
    """The groups that a batch's samples belong to, over all ranks.

    Attributes:
        granularity: ``sample``, ``category`` or ``corpus``.
        ids: The group's row in a table of all groups ``[G]``: the class of a category, 0 of the corpus; empty for
            samples, which have no table.
        place: Each own sample's group, a number below G ``[B]``.

    Args:
        granularity: Who shares.
        y: Class ids of this rank's samples ``[B]``.

    Raises:
        ValueError: If categories are asked for and the labels are no ids.
    """

    def __init__(self, granularity: str, y: Tensor) -> None:
        self.granularity = granularity
        if granularity == "category" and y.ndim != 1:
            raise ValueError(
                f"granularity='category' needs class ids [B]; the labels have the shape {tuple(y.shape)}. Take "
                "'sample' or 'corpus' for soft labels."
            )
        if granularity == "sample":
            self.place = torch.arange(len(y), device=y.device)
            self.ids = self.place[:0]
        elif granularity == "category":
            everyone: Tensor = gather_rows(y)[0].unique()  # type: ignore[no-untyped-call]
            self.ids = everyone
            self.place = torch.searchsorted(everyone, y)
        else:
            self.ids = torch.zeros(1, dtype=torch.int64, device=y.device)
            self.place = torch.zeros(len(y), dtype=torch.int64, device=y.device)

    @property
    def samples(self) -> Tensor:
        """How many samples of the batch each group has, over all ranks ``[G]``."""
        if self.granularity == "sample":
            return torch.ones(len(self.place), device=self.place.device)
        return sum_over_ranks(self._members(torch.float32).sum(1))

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over each group's samples of all ranks.

        Args:
            rows: Values of the own samples ``[B, ...]``; no gradient flows.

        Returns:
            ``[G, ...]``.
        """
        rows = rows.detach()
        if self.granularity == "sample":
            return rows
        # a product sums in the same order in every run, a scatter does not; under autocast it would round
        with torch.autocast(rows.device.type, enabled=False):
            sums = sum_over_ranks(self._members(rows.dtype) @ rows.reshape(len(rows), math.prod(rows.shape[1:])))
        counts = self.samples.to(rows.dtype).clamp(min=1)
        return (sums / counts[:, None]).reshape(-1, *rows.shape[1:])

    def spread(self, values: Tensor) -> Tensor:
        """Each own sample's row of its group's values ``[G, ...]``: ``[B, ...]``."""
        return values if self.granularity == "sample" else values[self.place]

    def table(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The groups of all ranks: their mean values ``[K]``, their samples ``[K]``, and each own sample's row ``[B]``.

        Args:
            rows: Values of the own samples ``[B]``; no gradient flows.
        """
        if self.granularity != "sample":
            return self.mean(rows), self.samples, self.place
        (everyone,), own = gather_batch(rows.detach())
        return everyone, torch.ones_like(everyone), torch.arange(len(everyone), device=rows.device)[own]

    def _members(self, dtype: torch.dtype) -> Tensor:
        groups = torch.arange(len(self.ids), device=self.place.device)
        return (self.place == groups[:, None]).to(dtype)
