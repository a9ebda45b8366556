"""Domains of samples, such as a place or a colour, which with classes make the groups of a subpopulation shift."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_perturb.data.labels import Labels, check_labels

# one id for each sample [N], or whether each domain applies [N, D]
Domains: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.bool_]


def check_domains(domains: npt.ArrayLike, samples: int, names: Sequence[str], source: str) -> Labels:
    """Returns domains as int64, or says what is wrong with them.

    Args:
        domains: Domain ids ``[N]``, whole numbers in 0..D-1.
        samples: How many samples there are.
        names: The names of the domains.
        source: What gave the domains, for the message.

    Raises:
        ValueError: If they are not one id in 0..D-1 for each sample.
    """
    if not names:
        raise ValueError(
            f"{source} tells the domain of each sample, but its domain_names are empty. Name every domain there."
        )
    ids = check_labels(domains, len(names), f"the domains of {source}")
    if len(ids) != samples:
        raise ValueError(f"{source} gives {len(ids)} domains for {samples} samples. Give one for each sample.")
    return ids


def check_overlapping(members: npt.ArrayLike, samples: int, names: Sequence[str], source: str) -> npt.NDArray[np.bool_]:
    """Returns which of several domains apply to each sample, as bool, or says what is wrong.

    Args:
        members: True where a domain applies ``[N, D]``.
        samples: How many samples there are.
        names: The names of the domains.
        source: What gave them, for the message.

    Raises:
        ValueError: If they are not one True or False for each sample and domain.
    """
    array: npt.NDArray[Any] = np.asarray(members)
    if array.shape != (samples, len(names)) or array.dtype != np.bool_:
        raise ValueError(
            f"{source} gives evaluation domains of type {array.dtype} and shape {array.shape}. Give True or False for "
            f"each of {samples} samples and {len(names)} evaluation_domain_names."
        )
    return array


def count_groups(labels: Labels, domains: Labels, num_classes: int, num_domains: int) -> Labels:
    """Returns the number of samples of each class in each domain ``[C, D]``.

    Args:
        labels: Class ids ``[N]``, or multi-hot labels ``[N, C]``, whose positives are counted.
        domains: Domain ids ``[N]``.
        num_classes: Number of classes C.
        num_domains: Number of domains D.
    """
    if labels.ndim == 2:
        return np.stack([labels[domains == d].sum(0) for d in range(num_domains)], axis=1).astype(np.int64)
    groups = group_ids(labels, domains, num_domains)
    return np.bincount(groups, minlength=num_classes * num_domains).reshape(num_classes, num_domains).astype(np.int64)


def group_ids(labels: Labels, domains: Labels, num_domains: int) -> Labels:
    """Returns the group of each sample ``[N]``: class * D + domain."""
    return labels * num_domains + domains
