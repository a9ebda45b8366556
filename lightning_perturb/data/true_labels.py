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
from lightning_perturb.data.sample_label import label_of

# classes whose first sample is compared with the stored labels
_CLASSES_COMPARED = 32
# labels that a worker sends at once
_BLOCK = 256


def read_true_labels(loader: DataLoader[Any], key: int | str) -> Labels:
    """Returns the class id, or the multi-hot labels, of every sample of a loader's data set, in index order.

    Labels that the set keeps (``targets``, ``labels``, the tensor of a TensorDataset; also below Subset and
    ConcatDataset) are taken where the first sample of up to 32 classes confirms them. Otherwise every sample is read
    once, by as many workers as the loader has.

    Args:
        loader: The foreign training loader.
        key: Where the label of a sample stands.

    Returns:
        int64 ``[N]``, or ``[N, C]``.

    Raises:
        ValueError: If a label is neither a class id nor multi-hot, or samples differ in that.
    """
    stored = _stored(loader.dataset, key)
    if stored is not None and _confirmed(loader.dataset, key, stored):
        return stored
    return read_labels(loader, key)


def _stored(dataset: Any, key: int | str) -> Labels | None:
    """Labels that the set keeps as a vector, or a matrix of zeros and ones, or None."""
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
    if array.shape in ((length,), (length, 1)) and array.dtype.kind in "iub":
        return array.reshape(length).astype(np.int64)
    if array.ndim == 2 and len(array) == length and array.dtype.kind in "iubf" and ((array == 0) | (array == 1)).all():
        return array.astype(np.int64)
    return None


def _confirmed(dataset: Any, key: int | str, stored: Labels) -> bool:
    first = np.unique(stored, return_index=True)[1] if stored.ndim == 1 else np.arange(len(stored))
    chosen = first[np.unique(np.linspace(0, len(first) - 1, _CLASSES_COMPARED).astype(np.int64))]
    positions = [*chosen.tolist(), len(stored) - 1]
    return all(np.array_equal(_label(dataset, key, position), stored[position]) for position in positions)


def _label(dataset: Any, key: int | str, position: int) -> int | Labels:
    return label_of(dataset[position][key], f"training sample {position}")


class _LabelsOf(Dataset[Any]):
    """The labels of a set alone, so that workers send no inputs."""

    def __init__(self, dataset: Any, key: int | str) -> None:
        self.dataset = dataset
        self.key = key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> int | Labels:
        return _label(self.dataset, self.key, position)


def read_labels(loader: DataLoader[Any], key: int | str) -> Labels:
    """Returns what stands at a place of every sample, as :func:`read_true_labels`, but always by reading them all.

    Args:
        loader: The foreign training loader.
        key: Where it stands.

    Raises:
        ValueError: If it is neither a class id nor multi-hot, or samples differ in that.
    """
    blocks: DataLoader[Any] = DataLoader(
        _LabelsOf(loader.dataset, key),
        batch_size=_BLOCK,
        num_workers=loader.num_workers,
        collate_fn=as_is,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    shown = track(blocks, "Reading labels", console=Console(stderr=True), transient=True, disable=rank() != 0)
    labels = [label for block in shown for label in block]
    odd = next((i for i, label in enumerate(labels) if np.shape(label) != np.shape(labels[0])), None)
    if odd is not None:
        shapes = [str(np.shape(labels[i])) if np.ndim(labels[i]) else "a class id" for i in (0, odd)]
        raise ValueError(
            f"The label of training sample {odd} is {shapes[1]}, that of sample 0 is {shapes[0]}. Let the data set "
            "return labels of one kind."
        )
    return np.asarray(labels, dtype=np.int64)
