"""All true labels of a foreign data set, before anything is corrupted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from lightning_perturb.core.distributed import rank
from lightning_perturb.data.datasets import as_is
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.sample_label import class_id

# classes whose first sample is compared with the stored labels
_CLASSES_COMPARED = 32
# labels that a worker sends at once
_BLOCK = 256


def read_true_labels(loader: DataLoader[Any], key: int | str) -> Labels:
    """Returns the class id of every sample of a loader's data set, in index order.

    Labels that the set keeps (``targets``, ``labels``, the tensor of a TensorDataset; also below Subset and
    ConcatDataset) are taken where the first sample of up to 32 classes confirms them. Otherwise every sample is read
    once, by as many workers as the loader has.

    Args:
        loader: The foreign training loader.
        key: Where the label of a sample stands.

    Returns:
        int64 ``[N]``.

    Raises:
        ValueError: If a label is not a class id.
    """
    stored = _stored(loader.dataset, key)
    if stored is not None and _confirmed(loader.dataset, key, stored):
        return stored
    return _read(loader, key)


def _stored(dataset: Any, key: int | str) -> Labels | None:
    """Labels that the set keeps as a vector, or None."""
    if isinstance(dataset, Subset):
        below = _stored(dataset.dataset, key)
        return None if below is None else below[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_stored(part, key) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    if isinstance(dataset, TensorDataset):
        return _vector(dataset.tensors[key], len(dataset)) if isinstance(key, int) else None
    # it is applied after the stored label is read, and may be anything
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        vector = _vector(getattr(dataset, name, None), len(dataset))
        if vector is not None:
            return vector
    return None


def _vector(value: Any, length: int) -> Labels | None:
    if value is None or callable(value):
        return None
    try:
        array: npt.NDArray[Any] = value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:  # a ragged list
        return None
    if array.shape not in ((length,), (length, 1)) or array.dtype.kind not in "iub":
        return None
    return array.reshape(length).astype(np.int64)


def _confirmed(dataset: Any, key: int | str, stored: Labels) -> bool:
    first = np.unique(stored, return_index=True)[1]
    chosen = first[np.unique(np.linspace(0, len(first) - 1, _CLASSES_COMPARED).astype(np.int64))]
    return all(_label(dataset, key, position) == stored[position] for position in [*chosen.tolist(), len(stored) - 1])


def _label(dataset: Any, key: int | str, position: int) -> int:
    return class_id(dataset[position][key], f"training sample {position}")


class _LabelsOf(Dataset[int]):
    """The labels of a set alone, so that workers send no inputs."""

    def __init__(self, dataset: Any, key: int | str) -> None:
        self.dataset = dataset
        self.key = key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> int:
        return _label(self.dataset, self.key, position)


def _read(loader: DataLoader[Any], key: int | str) -> Labels:
    blocks: DataLoader[Any] = DataLoader(
        _LabelsOf(loader.dataset, key),
        batch_size=_BLOCK,
        num_workers=loader.num_workers,
        collate_fn=as_is,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    shown = track(blocks, "Reading labels", console=Console(stderr=True), transient=True, disable=rank() != 0)
    return np.asarray([label for block in shown for label in block], dtype=np.int64)
