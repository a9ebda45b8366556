"""Per-sample and per-class state: complete on every rank, in the checkpoint, sized by the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.core.distributed import gather_rows


class StateMixin(nn.Module):
    """Declares buffers whose rows belong to samples or classes, and writes them alike on all ranks.

    The buffers stand on DDP's ignore list: otherwise rank 0's copy would overwrite the others' at every step.
    """

    _ddp_params_and_buffers_to_ignore: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sample_state: dict[str, float] = {}
        self._first_state: dict[str, Tensor] = {}
        self._open_state: list[str] = []
        self._ddp_params_and_buffers_to_ignore = []
        self.register_load_state_dict_pre_hook(_fit_rows_to_checkpoint)  # type: ignore[no-untyped-call]

    def add_state(self, name: str, value: Tensor, persistent: bool = True) -> None:
        """Declares a buffer that every rank keeps for itself, equal by construction.

        Args:
            name: Name of the buffer.
            value: Its first value, kept for :meth:`reset_state`; may be expanded to its shape.
            persistent: Keep it in checkpoints. What ``setup`` computes anew from data and arguments need not be there,
                where it would beat an argument that a resumed run changes.
        """
        self.register_buffer(name, value.clone(), persistent=persistent)
        self._first_state[name] = value
        self._ddp_params_and_buffers_to_ignore = [*self._ddp_params_and_buffers_to_ignore, name]

    def add_sample_state(self, name: str, *shape: int, fill: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        """Declares one row per training sample; the row count comes with the data.

        Args:
            name: Name of the buffer.
            *shape: Shape of one row.
            fill: Value of a row before its sample was seen.
            dtype: Type of the buffer.
        """
        self.add_state(name, torch.full((0, *shape), fill, dtype=dtype))
        self._sample_state[name] = fill

    def add_open_state(self, name: str) -> None:
        """Declares a buffer whose shape comes with its first value, such as that of an input; empty before.

        Args:
            name: Name of the buffer.
        """
        self.add_state(name, torch.empty(0))
        self._open_state = [*self._open_state, name]

    def set_open_state(self, name: str, value: Tensor) -> None:
        """Gives a buffer of :meth:`add_open_state` a value, equal on all ranks.

        Args:
            name: Name of the buffer.
            value: Its value; kept as it is, without gradient.
        """
        setattr(self, name, value.detach())

    def reset_state(self) -> None:
        """Puts every declared buffer back to its first value; per-sample buffers lose their rows."""
        for name, first in self._first_state.items():
            setattr(self, name, first.to(getattr(self, name), copy=True))

    def size_sample_state(self, num_samples: int) -> None:
        """Gives every per-sample buffer ``num_samples`` rows; rows that exist keep their values."""
        for name, fill in self._sample_state.items():
            old = getattr(self, name)
            if len(old) < num_samples:
                new = old.new_full((num_samples, *old.shape[1:]), fill)
                new[: len(old)] = old
                setattr(self, name, new)

    def read_sample_state(self, name: str, index: Tensor) -> Tensor:
        """Rows of a per-sample buffer ``[B, ...]``; rows beyond the known samples are created."""
        self._grow(index)
        return getattr(self, name)[index]  # type: ignore[no-any-return]

    @torch.no_grad()
    def write_state(self, name: str, index: Tensor, value: Tensor, *, accumulate: bool = False) -> None:
        """Writes rows of a buffer; all ranks' rows reach all ranks.

        Args:
            name: Name of the buffer.
            index: Rows ``[B]``.
            value: Values ``[B, ...]``.
            accumulate: Add to the rows instead of replacing them (rows may repeat).
        """
        index, value = gather_rows(index, value)
        if not accumulate:
            index, value = _last_of_each(index, value)
        if name in self._sample_state:
            self._grow(index)
        buffer = getattr(self, name)
        value = value.to(buffer.dtype)
        if accumulate:
            buffer.index_add_(0, index, value)
        else:
            buffer.index_copy_(0, index, value)

    def _grow(self, index: Tensor) -> None:
        # without a data module that tells its size, rows appear as their samples do
        if self._sizes_known or not len(index):
            return
        highest = int(gather_rows(index.max().reshape(1))[0].max())
        known = min(len(getattr(self, name)) for name in self._sample_state)
        if highest >= known:
            self.size_sample_state(max(highest + 1, 2 * known))

    _sizes_known: bool = False


def _last_of_each(index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Drops rows that come again: which of them a device writes last is not defined."""
    order = torch.argsort(index, stable=True)
    ordered = index[order]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    kept = order[last]
    return index[kept], value[kept]


def _fit_rows_to_checkpoint(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    if not isinstance(module, StateMixin):
        return
    for name in module._open_state:
        if (saved := state_dict.get(prefix + name)) is not None:
            setattr(module, name, torch.empty_like(saved, device=getattr(module, name).device))
    for name in module._sample_state:
        saved = state_dict.get(prefix + name)
        if saved is None:
            continue
        buffer = getattr(module, name)
        resuming = getattr(module, "_resuming", False)
        if resuming and module._sizes_known and len(saved) != len(buffer):
            raise ValueError(
                f"The checkpoint holds the state {name!r} of {len(saved)} training samples, the data now has "
                f"{len(buffer)}. Resume with the data the checkpoint was trained on, or start a new run from its "
                "weights (lightning_perturb.load)."
            )
        setattr(module, name, torch.empty_like(saved, device=buffer.device))
