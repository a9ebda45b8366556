"""The bases of methods for subpopulation shift: they know domains of samples, which with classes make groups."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import gather_batch, world_size
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.core.needs import Needs
from lightning_perturb.functional.domain_risks import domain_balance


class DomainModule(PerturbationModule):
    """A method that knows the domain of each sample: a place, a colour, a source.

    Args:
        num_domains: Number of domains D, for loaders of your own, where a method needs it; None takes the data's.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If it is below 1. At the start of a fit: if the data has another number.
    """

    needs = Needs(domains=True)

    def __init__(self, *args: Any, num_domains: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if num_domains is not None:
            check_positive("num_domains", num_domains)
        self.num_domains = num_domains

    def setup(self, stage: str) -> None:
        """As in the base; compares the number of domains with the data's."""
        super().setup(stage)
        if stage == "fit" and self.facts is not None and self.num_domains not in (None, self.facts.num_domains):
            raise ValueError(
                f"num_domains={self.num_domains} of {type(self).__name__} disagrees with the data, which has "
                f"{self.facts.num_domains} domains. Leave num_domains away: the data tells it."
            )

    def known_domains(self) -> int:
        """The number of domains D.

        Raises:
            ValueError: If nobody tells it.
        """
        told = self.num_domains if self.facts is None else self.facts.num_domains
        if not told:
            raise ValueError(
                f"{type(self).__name__} needs the number of domains. Use a lightning_perturb data module with domains, "
                "or give num_domains=."
            )
        return told

    def domains(self, batch: Batch) -> Tensor:
        """The samples' domains ``[B]``.

        Raises:
            ValueError: If the batch carries none, or one is outside 0..D-1 for a number D that is told.
        """
        domain = super().domains(batch)
        told = self.num_domains if self.facts is None else self.facts.num_domains
        # where they are on another device, one epoch sees every domain, as it sees every label
        looks = len(domain) and (domain.device.type == "cpu" or self.current_epoch == 0)
        if told and looks and not (int(domain.min()) >= 0 and int(domain.max()) < told):
            wrong = int(domain.min()) if int(domain.min()) < 0 else int(domain.max())
            raise ValueError(
                f"A domain is {wrong}, outside 0..{told - 1} for num_domains={told} of {type(self).__name__}. Number "
                "the domains from 0, or raise num_domains."
            )
        return domain

    def given_class(self, batch: Batch) -> Tensor:
        """The given class of each sample ``[B]``, the likeliest one of soft labels."""
        return batch.y if batch.y.ndim == 1 else batch.y.argmax(1)

    def group(self, batch: Batch) -> Tensor:
        """The group of each sample ``[B]``: its class times D, and its domain."""
        return self.given_class(batch) * self.known_domains() + self.domains(batch)


class GroupModule(DomainModule):
    """A method that knows all groups, and how frequent they are in the training set where that is told.

    Args:
        group_counts: Given labels by class and domain in the training set, a row of D numbers for each class, for data
            modules that do not tell.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainModule`.

    Raises:
        ValueError: If the counts are no such rows, or contradict ``num_domains``.
    """

    def __init__(self, *args: Any, group_counts: list[list[int]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given_groups: Tensor | None = None
        if group_counts is None:
            return
        widths = {len(row) for row in group_counts}
        if len(group_counts) != self.num_classes or len(widths) != 1 or not widths <= {self.num_domains or max(widths)}:
            raise ValueError(
                f"group_counts={group_counts} must be {self.num_classes} rows, one a class, of "
                f"{self.num_domains or 'D'} numbers of samples, one a domain."
            )
        self._given_groups = torch.tensor(group_counts, dtype=torch.int64)
        if not (self._given_groups >= 0).all() or not self._given_groups.any():
            raise ValueError(f"group_counts={group_counts} must be numbers of samples of at least 0, not all 0.")
        self.num_domains = self._given_groups.shape[1]

    def setup(self, stage: str) -> None:
        """As in the base; takes the counts."""
        super().setup(stage)
        if self._given_groups is not None:
            self.set_open_state("group_counts", self._given_groups.to(self.class_counts.device))
        if stage == "fit":
            counts = self.group_counts.flatten() if self.group_counts.numel() else None
            self.use_groups(self.num_classes * self.known_domains(), counts)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base; counts that are given beat those of the checkpoint, as in what is made of them."""
        super().on_load_checkpoint(checkpoint)
        if self._given_groups is not None and self._resuming and "group_counts" in checkpoint.get("state_dict", {}):
            checkpoint["state_dict"]["group_counts"] = self._given_groups

    def use_groups(self, groups: int, counts: Tensor | None) -> None:
        """Makes state of the groups before training; a checkpoint is loaded after it.

        Args:
            groups: Number of groups G, C times D.
            counts: Training samples of each group ``[G]``, which may be 0; None where nobody tells them.
        """


class DomainPenaltyModule(DomainModule):
    """A loss with a penalty on how domains differ: the mean risk of domains, and ``weight`` times what it finds.

    Only the domains in a batch, over all devices, are compared.

    Args:
        weight: Weight of the penalty.
        anneal_steps: Steps of the optimizer until the penalty has its weight; before, it has 1, as in the published
            codes, or less where the weight is less.
        rescale: Divide the loss by the weight of the penalty where that is above 1, so that gradients stay as large as
            they were (the published code for coloured MNIST).
        risk: ``domains``: the mean of the domains' mean losses, whatever their sizes. ``samples``: the mean over the
            batch.
        environments: What counts as a domain: the ``domain`` alone, or each ``group``, a class in a domain.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainModule`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *args: Any,
        weight: float = 1.0,
        anneal_steps: int = 0,
        rescale: bool = False,
        risk: Literal["domains", "samples"] = "domains",
        environments: Literal["domain", "group"] = "domain",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("weight", weight, zero=True)
        check_positive("anneal_steps", anneal_steps, zero=True)
        check_choice("risk", risk, ("domains", "samples"))
        check_choice("environments", environments, ("domain", "group"))
        self.weight = weight
        self.anneal_steps = anneal_steps
        self.rescale = rescale
        self.risk = risk
        self.environments = environments

    def environment(self, batch: Batch) -> Tensor:
        """What counts as the domain of each sample ``[B]``."""
        return self.domains(batch) if self.environments == "domain" else self.group(batch)

    @property
    def annealed(self) -> bool:
        """Whether the penalty has its weight."""
        return self.global_step >= self.anneal_steps

    @property
    def penalty_weight(self) -> float:
        """The weight of the penalty in this step."""
        return self.weight if self.annealed else min(self.weight, 1.0)

    def penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """The penalty, a number: the same on all ranks, of the samples of all ranks.

        Args:
            loss: The samples' losses ``[B]``.
            logits: The raw logits ``[B, C]``.
            batch: The batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its penalty is.")

    def weighted_penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """The penalty times its weight; a method with several adds them up."""
        return self.penalty_weight * self.penalty(loss, logits, batch)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """The penalty beside every sample's loss, which has the weight of its domain."""
        loss = super().perturb_loss(loss, logits, batch)
        penalty = self.weighted_penalty(loss, logits, batch)
        if self.risk == "domains":
            loss = loss * self._balance(batch, loss.dtype)
        return (loss + penalty) / (max(self.penalty_weight, 1.0) if self.rescale else 1.0)

    def _balance(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        (domain,), own = gather_batch(self.environment(batch))
        # the mean over this rank's samples, and then over ranks, is to be that over all
        return domain_balance(domain, dtype)[own] * (len(batch) * world_size() / len(domain))
