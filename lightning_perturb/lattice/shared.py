"""Perturbations that walk by steps: anew in each batch, or, of shared inputs, from batch to batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.lattice.groups import Groups
from lightning_perturb.lattice.site import Site

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def walk(
    value: Tensor,
    signs: Tensor,
    site: Site,
    groups: Groups,
    steps: int,
    step: Step,
    limits: Tensor | None = None,
) -> Tensor:
    """The perturbations of logits or deep features ``[B, ...]`` after some steps from 0.

    Args:
        value: The values ``[B, ...]``; no gradient flows.
        signs: Which way each sample's loss is to go ``[B]``, the same for a group; 0 leaves it alone.
        site: Where the cell acts.
        groups: Who shares.
        steps: Number of steps.
        step: From the groups' perturbations, their gradients and their signs to the new perturbations.
        limits: After how many steps each group stops ``[G]``; None lets all go on.
    """
    value = value.detach()
    value = value if value.dtype == torch.float64 else value.float()
    sign = groups.mean(signs)
    delta = value.new_zeros(len(sign), *value.shape[1:])
    for k in range(steps):
        moved = step(delta, groups.mean(site.gradient(value + groups.spread(delta))), sign)
        delta = moved if limits is None else torch.where(_rows(limits > k, delta), moved, delta)
    return groups.spread(delta)


class SharedInput:
    """One perturbation of the input for each group, walked on in every batch from where it was.

    Args:
        space: Units and limits of the input.
    """

    def __init__(self, space: InputSpace) -> None:
        self.space = space

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Declares the perturbations ``[K, ...]`` of K groups, whose shape comes with the first input."""
        module.add_open_state(f"{slot}_shared")

    def check(self, x: Tensor, module: PerturbationModule) -> None:
        """Says that inputs are no pixels where they must be; in the first epoch, which sees them all."""
        if module.current_epoch == 0 or x.device.type == "cpu":
            self.space.check(x, module.facts)

    def walk(self, x: Tensor, signs: Tensor, site: Site, groups: Groups, steps: int, step: Step) -> Tensor:
        """The inputs with their group's perturbation, after some steps of it.

        Args:
            x: Inputs ``[B, ...]``.
            signs: Which way each sample's loss is to go ``[B]``, the same for a group; 0 leaves it alone.
            site: Where the cell acts.
            groups: Who shares.
            steps: Number of steps.
            step: From the groups' perturbations, their gradients and their signs to the new perturbations.
        """
        module = site.module
        self.check(x, module)
        name = f"{site.slot}_shared"
        known: Tensor = getattr(module, name)
        if not known.numel():
            number = module.num_classes if groups.granularity == "category" else 1
            known = x.new_zeros(number, *x.shape[1:])
        if known.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"The inputs have the shape {tuple(x.shape[1:])}, the perturbation that they share "
                f"{tuple(known.shape[1:])}. Give all inputs one shape (crop or resize them)."
            )
        sign = groups.mean(signs)
        delta = known[groups.ids].to(x.dtype)
        acts = _rows(signs, x) != 0

        def perturbed(delta: Tensor) -> Tensor:
            return torch.where(acts, self.space.clipped(x + groups.spread(delta), module.facts), x)

        for _ in range(steps):
            delta = step(delta, groups.mean(site.gradient(perturbed(delta))), sign)
        module.set_open_state(name, known.index_copy(0, groups.ids, delta.to(known.dtype)))
        return perturbed(delta)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
