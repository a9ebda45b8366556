"""Where the label stands in one sample of a foreign data set: found, read, and exchanged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.data.labels import Labels

INPUT_NAMES = ("x", "input", "image")
LABEL_NAMES = ("y", "label", "labels", "target")


def find_label_key(sample: Any, label_key: int | str | None) -> int | str:
    """Returns where the label of a sample stands.

    Args:
        sample: A tuple, a named tuple, a list or a mapping.
        label_key: Position or name that the user gave; None for position 1, or the first of ``y``, ``label``,
            ``labels``, ``target`` in a mapping.

    Returns:
        A key of the mapping, or a position from 0 (also for a name in a named tuple).

    Raises:
        ValueError: If the sample has another form, or nothing at that place.
    """
    if isinstance(sample, Mapping):
        found = [name for name in (LABEL_NAMES if label_key is None else (label_key,)) if name in sample]
        if not found:
            raise ValueError(
                f"label_key={label_key!r} finds no label in a sample with the keys {[*sample]}. Set label_key to the "
                "key of the class id."
            )
        return found[0]
    if not isinstance(sample, (tuple, list)):
        raise ValueError(
            f"A sample of the training set is a {type(sample).__name__}. Let the data set return (x, y) or a mapping "
            "with a label, so that the label can be exchanged."
        )
    fields = getattr(sample, "_fields", ())
    place = fields.index(label_key) if label_key in fields else 1 if label_key is None else label_key
    if isinstance(place, str) or not -len(sample) <= place < len(sample):
        raise ValueError(
            f"label_key={label_key!r} finds no label in a sample of {len(sample)} parts"
            f"{f' named {list(fields)}' if fields else ''}. Set label_key to the position of the class id, from 0."
        )
    return int(place) % len(sample)


def class_id(label: Any, where: str) -> int:
    """Returns the class id in a label of one sample.

    Args:
        label: A whole number of Python, NumPy or PyTorch, or an array or tensor that holds just one.
        where: What the label belongs to, for the message.

    Raises:
        ValueError: If it is anything else.
    """
    whole = isinstance(label, (int, np.integer, np.bool_))
    if isinstance(label, Tensor):
        whole = label.numel() == 1 and not (label.is_floating_point() or label.is_complex())
    elif isinstance(label, np.ndarray):
        whole = label.size == 1 and label.dtype.kind in "iub"
    if not whole:
        kind = f"{label.dtype} of shape {tuple(label.shape)}" if hasattr(label, "shape") else type(label).__name__
        raise ValueError(
            f"The label of {where} is {kind}, not a class id. Wrap corrupts one whole number 0..C-1 per sample: let "
            "the data set return that, or set label_key to where it stands."
        )
    return int(label.item()) if isinstance(label, (Tensor, np.ndarray)) else int(label)


def label_of(label: Any, where: str) -> int | Labels:
    """Returns the class id in a label of one sample, or the multi-hot labels ``[C]``.

    Args:
        label: What :func:`class_id` reads, or a vector of several zeros and ones.
        where: What the label belongs to, for the message.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(label, (Tensor, np.ndarray)) or len(label.shape) != 1 or label.shape[0] == 1:
        return class_id(label, where)
    row = np.asarray(label)
    if row.dtype.kind not in "iubf" or not ((row == 0) | (row == 1)).all():
        raise ValueError(
            f"The label of {where} is {label.dtype} of shape {tuple(label.shape)}, and not all of it is 0 or 1. Wrap "
            "corrupts one whole number 0..C-1 per sample, or one 0 or 1 for each class: let the data set return that, "
            "or set label_key to where it stands."
        )
    return row.astype(np.int64)


def with_label(sample: Any, key: int | str, label: int | Labels) -> Any:
    """Returns the sample with another label; sample and label keep their types, and the old sample is left alone.

    Args:
        sample: A tuple, a named tuple, a list or a mapping.
        key: Where the label stands, from :func:`find_label_key`.
        label: The new class id, or the new multi-hot labels ``[C]``.
    """
    new = _like(sample[key], label)
    if isinstance(sample, MutableMapping):
        changed = copy.copy(sample)
        changed[key] = new
        return changed
    if isinstance(sample, Mapping):
        return {**sample, key: new}
    parts = [new if place == key else part for place, part in enumerate(sample)]
    return type(sample)(*parts) if hasattr(sample, "_fields") else type(sample)(parts)


def input_of(sample: Any, key: int | str) -> Any:
    """Returns the input of a sample: its first part besides the label, or ``x``, ``input`` or ``image`` of a mapping.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(sample, Mapping):
        for name in INPUT_NAMES:
            if name in sample:
                return sample[name]
        raise ValueError(
            f"A sample with the keys {[*sample]} names no single input. Name it 'x', 'input' or 'image', or use label "
            "noise and reports that do not look at inputs."
        )
    return sample[1 if key == 0 else 0]


def _like(old: Any, label: int | Labels) -> Any:
    """A label of the type and shape of the old one."""
    if isinstance(old, Tensor):
        return torch.as_tensor(label, device=old.device).to(old.dtype).expand_as(old).clone()
    if isinstance(old, np.ndarray):
        return np.broadcast_to(label, old.shape).astype(old.dtype)
    return type(old)(label)
