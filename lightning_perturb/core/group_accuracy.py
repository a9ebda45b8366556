"""Accuracy by group, a class in a domain: the worst, the mean, and the mean with groups as frequent as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torchmetrics import Metric

from lightning_perturb.core.distributed import world_size

# beyond these the list of groups tells a reader nothing
_MOST_NAMED = 100


class GroupAccuracy(Metric):
    """Right predictions and samples of every class in every domain, however they fall on batches and ranks.

    It learns from the batches how many domains there are.

    Args:
        num_classes: Number of classes.
    """

    full_state_update = False
    right: Tensor
    samples: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("right", "samples"):
            self.add_state(name, torch.zeros(num_classes, 0, dtype=torch.int64), dist_reduce_fx="sum")
        self.overlapping = False

    def update(self, right: Tensor, target: Tensor, domain: Tensor) -> None:
        """Adds a batch.

        Args:
            right: Whether a prediction is right ``[B]``.
            target: Class ids ``[B]``.
            domain: Domain ids ``[B]``, or in bool which of several domains apply ``[B, D]``.

        Raises:
            ValueError: If the domains are neither.
        """
        members = self._members(domain, len(target))
        self._widen(members.shape[1])
        self.samples = self.samples.index_add(0, target, members)
        self.right = self.right.index_add(0, target, members * right[:, None])

    def _members(self, domain: Tensor, samples: int) -> Tensor:
        if domain.ndim == 2 and domain.dtype == torch.bool and len(domain) == samples:
            self.overlapping = True
            members = domain.long()
        elif domain.shape == (samples,) and not domain.is_floating_point() and not (domain < 0).any():
            members = one_hot(domain.long())
        else:
            raise ValueError(
                f"A batch of {samples} samples has a 'domain' of type {domain.dtype} and shape {tuple(domain.shape)}. "
                "Give ids from 0 on [B], or in bool which domains apply [B, D], or name the entry otherwise."
            )
        missing = self.samples.shape[1] - members.shape[1]
        return pad(members, (0, max(missing, 0)))

    def _widen(self, domains: int) -> None:
        for name in ("right", "samples"):
            counts = getattr(self, name)
            setattr(self, name, pad(counts, (0, max(domains - counts.shape[1], 0))))

    def agree(self) -> bool:
        """Gives all ranks the same number of domains, and says whether there are any; every rank must call it."""
        if world_size() > 1:
            seen = torch.tensor([self.samples.shape[1], self.overlapping], device=self.samples.device)
            dist.all_reduce(seen, dist.ReduceOp.MAX)
            self.overlapping = bool(seen[1])
            self._widen(int(seen[0]))
        return self.samples.shape[1] > 0

    def compute(self) -> Tensor:
        """The accuracy of each class in each domain ``[C, D]``; NaN where a group has no sample."""
        return torch.where(self.samples > 0, self.right / self.samples.clamp(min=1), torch.nan)

    def reset(self) -> None:
        """As in the base; the next data may have other domains."""
        super().reset()
        self.overlapping = False


def group_values(accuracy: Tensor, training: Tensor | None, class_names: Any, domain_names: Any) -> dict[str, Tensor]:
    """What is logged of the groups' accuracies; groups without a sample are left out.

    Args:
        accuracy: ``[C, D]``, NaN where a group has no sample.
        training: Training samples of each group ``[C, D]``, or None where they are unknown.
        class_names: Names of the classes; numbers take the place of anything but C names.
        domain_names: Names of the domains, more than D where the last ones have no sample; numbers take the place of
            anything else.

    Returns:
        ``worst_group_acc``; ``mean_group_acc``, every group alike; ``train_weighted_acc``, groups as frequent as in
        training; and ``group_acc/<class>/<domain>`` of each, up to a hundred groups.
    """
    if isinstance(domain_names, (list, tuple)):
        # no sample has told of the last domains
        accuracy = pad(accuracy, (0, max(len(domain_names) - accuracy.shape[1], 0)), value=torch.nan)
    known = ~accuracy.isnan()
    if not known.any():
        return {}
    values = {"worst_group_acc": accuracy[known].min(), "mean_group_acc": accuracy[known].mean()}
    if training is not None and training.shape == accuracy.shape and training[known].any():
        weights = training[known].to(accuracy.dtype)
        values["train_weighted_acc"] = (weights * accuracy[known]).sum() / weights.sum()
    if accuracy.numel() <= _MOST_NAMED:
        names = group_names(accuracy.shape, class_names, domain_names)
        for c, d in known.nonzero().tolist():
            values[f"group_acc/{names[c][d]}"] = accuracy[c, d]
    return values


def group_names(shape: Sequence[int], class_names: Any, domain_names: Any) -> list[list[str]]:
    """``<class>/<domain>`` of each group, by class and domain.

    Args:
        shape: Number of classes C, and of domains D.
        class_names: Names of the classes; numbers take the place of anything but C names.
        domain_names: Names of the domains, likewise.
    """
    rows, columns = _names(class_names, shape[0]), _names(domain_names, shape[1])
    return [[f"{row}/{column}" for column in columns] for row in rows]


def _names(names: Any, number: int) -> list[str]:
    if not isinstance(names, (list, tuple)) or len(set(map(str, names))) != number:
        return [str(i) for i in range(number)]
    # a slash would look like a part of the path that a metric's name is
    return [str(name).replace("/", "-") for name in names]
