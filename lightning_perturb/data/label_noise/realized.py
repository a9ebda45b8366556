"""What a noise did: measured from true and given labels."""

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.labels import Labels, check_labels, check_multi_hot


def realized_transition_matrix(true: npt.ArrayLike, given: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float64]:
    """Returns the share of each given label within each true class.

    Args:
        true: true class ids, shape [N].
        given: given class ids, shape [N].
        num_classes: number of classes C.

    Returns:
        Matrix of shape [C, C], row: true class, column: given class. Rows sum to 1; the row of a class without samples
        is zero.

    Raises:
        ValueError: if the two vectors differ in length or hold labels outside 0..C-1.
    """
    y, z = check_labels(true, num_classes, "true"), check_labels(given, num_classes, "given")
    _check_same_length(y, z)
    counts = np.bincount(y * num_classes + z, minlength=num_classes**2).reshape(num_classes, num_classes)
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def realized_entry_matrices(true: npt.ArrayLike, given: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float64]:
    """Returns how the entries of multi-hot labels became given ones, for each class by itself.

    Args:
        true: true multi-hot labels, shape [N, C].
        given: given multi-hot labels, shape [N, C].
        num_classes: number of classes C.

    Returns:
        Matrices of shape [C, 2, 2]: class, true entry, given entry. Rows sum to 1; a row without samples is zero.

    Raises:
        ValueError: if the two differ in length or are not multi-hot.
    """
    y, z = check_multi_hot(true, num_classes, "true"), check_multi_hot(given, num_classes, "given")
    _check_same_length(y, z)
    return np.stack([realized_transition_matrix(y[:, c], z[:, c], 2) for c in range(num_classes)])


def noise_rate(true: npt.ArrayLike, given: npt.ArrayLike) -> float:
    """Returns the share of given labels that differ from the true ones; 0 for no labels at all.

    Args:
        true: true class ids, shape [N], or multi-hot labels, shape [N, C], whose entries count one by one.
        given: given labels of the same shape.

    Raises:
        ValueError: if the two vectors differ in length.
    """
    y, z = np.asarray(true), np.asarray(given)
    _check_same_length(y, z)
    return float(np.mean(y != z)) if len(y) else 0.0


def _check_same_length(true: Labels, given: Labels) -> None:
    if len(true) != len(given):
        raise ValueError(f"true has {len(true)} labels and given has {len(given)}. Give both for the same samples.")
