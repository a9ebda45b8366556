"""Losses weighted by group, a class in a domain: group DRO, whose weights follow the losses, and fixed ones (UW)."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_rows, world_size
from lightning_perturb.core.domains import GroupModule
from lightning_perturb.core.weighted import WeightedModule
from lightning_perturb.functional import (
    balanced_group_weights,
    generalization_adjustment,
    group_dro_step,
    group_risks,
)


class GroupDRO(GroupModule):
    """Minimises the loss of the worst group: sum_g q_g l_g, where q follows the groups' losses (Sagawa et al., 2020).

    Before each step of the network q makes one of exponentiated gradient ascent on the batch's mean losses by group, of
    all devices. Groups that are not in the batch have no part in it. (In the published code the adjustment moves them
    still.) The authors train with strong weight decay, up to 1, and draw all groups alike often.

    Args:
        step_size: η of q. 0.01 as in the published code.
        adjustment: C of the generalization adjustment: l_g + C / sqrt(n_g) moves q, so that small groups count more.
            The paper searches 0 to 5; 0 leaves it out.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.GroupModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "adversarial", "category")

    #: log q of each group ``[G]``, -inf for groups without training samples
    group_log_weight: Tensor
    group_adjustment: Tensor

    def __init__(self, *args: Any, step_size: float = 0.01, adjustment: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("step_size", step_size, zero=True)
        check_positive("adjustment", adjustment, zero=True)
        self.step_size = step_size
        self.adjustment = adjustment
        self.add_open_state("group_log_weight")
        self.add_state("group_adjustment", torch.zeros(()), persistent=False)

    def use_groups(self, groups: int, counts: Tensor | None) -> None:
        """q alike for all groups that have samples."""
        super().use_groups(groups, counts)
        if counts is None and self.adjustment:
            raise ValueError(
                f"adjustment={self.adjustment} of {type(self).__name__} needs the number of training samples of each "
                "group. Use a lightning_perturb data module with domains, or give group_counts=[[...], ...]."
            )
        start = self.group_log_weight.new_zeros(groups)
        if counts is not None:
            start = start.masked_fill(counts == 0, -torch.inf)
            self.group_adjustment = generalization_adjustment(counts, self.adjustment).to(start)
        self.set_open_state("group_log_weight", start.log_softmax(0))

    def on_fit_start(self) -> None:
        """Compares what a resumed run had with the data."""
        super().on_fit_start()
        groups = self.num_classes * self.known_domains()
        if len(self.group_log_weight) != groups:
            raise ValueError(
                f"The checkpoint of {type(self).__name__} holds the weights of {len(self.group_log_weight)} groups, "
                f"the data now has {groups}. Resume with the data the checkpoint was trained on."
            )

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l q_g over the group's share in the batch."""
        loss = super().perturb_loss(loss, logits, batch)
        group = self.group(batch)
        all_losses, all_groups = gather_rows(loss, group)
        risks, sizes = group_risks(all_losses, all_groups, len(self.group_log_weight))
        adjusted = risks + self.group_adjustment.to(risks.dtype)
        log_weight = group_dro_step(self.group_log_weight, adjusted, self.step_size, sizes > 0)
        batch.extra["group_log_weight"] = log_weight
        weight = log_weight.exp().to(loss.dtype)
        self.tell(batch, "hyperparameter/group_weight", weight[group])
        # the mean over this rank's samples, and then over ranks, is to be the sum over groups
        return loss * weight[group] * (len(batch) * world_size() / sizes[group].to(loss.dtype))

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Keeps q."""
        super().update_state(outputs, batch)
        if self.phase != "warmup":
            self.set_open_state("group_log_weight", batch.extra["group_log_weight"])


class UW(WeightedModule, GroupModule):
    """Every sample's loss times a weight of its group, 1 / n_g, so that all groups have the same part in the loss.

    The weights are scaled to a mean of 1 over the training samples. A group is a given class in a domain.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.weighted.WeightedModule`, and of
            :class:`~lightning_perturb.core.domains.GroupModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "category")

    group_weight: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_state("group_weight", torch.ones(0), persistent=False)

    def use_groups(self, groups: int, counts: Tensor | None) -> None:
        """The weights."""
        super().use_groups(groups, counts)
        if counts is None:
            raise ValueError(
                f"{type(self).__name__} needs the number of training samples of each group. Use a lightning_perturb "
                "data module with domains, or give group_counts=[[...], ...]."
            )
        self.group_weight = balanced_group_weights(counts).to(self.group_weight)

    def sample_weights(self, batch: Batch) -> Tensor:
        """1 / n_g, scaled."""
        return self.group_weight[self.group(batch)]
