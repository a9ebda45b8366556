"""Cells whose perturbation raises, or lowers, the loss most inside a bound."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive, check_rate
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.core.modes import evaluating
from lightning_perturb.functional import (
    bounded_reweighting,
    bounded_step,
    l2_start,
    lpl_steps,
    perturb_label,
    pgd,
    uniform_start,
)
from lightning_perturb.lattice.bounds import Bounds
from lightning_perturb.lattice.cell import At, Direction, Granularity, SplitCell, Target
from lightning_perturb.lattice.shared import SharedInput, Step, walk
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import Split

_USUAL = {"feature": 8 / 255, "deep": 0.1, "logit": 1.0, "label": 0.1, "loss": 0.5}


class Adversarial(SplitCell):
    """The perturbation inside a bound that raises the loss most, or lowers it most [tax 31, 32, 43, 45-47].

    Features and logits walk by projected gradient steps. An input's perturbation that a category or the corpus shares
    is kept from batch to batch, as universal adversarial training does; others are found anew in each batch. A
    label moves its share to the least (most) likely class [tax 25], and losses are weighted with mean 1 by how far they
    are from their mean; both are exact.

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        eps: The bound: radius of the ball of features or logits, share of the label, spread of the weights. None takes
            8/255 (input), 0.1 (deep features, labels), 1 (logits) and 0.5 (losses).
        steps: Steps of features and logits in each batch; None takes 5.
        step_size: Length of a step; None takes a quarter of ``eps``, or of 1 with ``norm="none"``.
        norm: ``linf`` or ``l2``; None takes linf; ``none`` goes along the plain gradient of logits or deep
            features in no ball, as MixPert.
        random_start: Start inputs of samples at a random point of the ball; None does.
        space: Units and limits of inputs; None takes pixels.
        split: As of :class:`~lightning_perturb.lattice.SplitCell`.
        bounds: Bounds that differ by category, of which ``eps`` is the smallest: each category takes as many steps of
            ``step_size`` as go into its bound, as LPL. For logits and deep features.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If a number is out of range, ``norm="none"`` is asked for inputs, or an argument is given that the
            target does not use.
    """

    inference: ClassVar[str] = "adversarial"

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "negative",
        eps: float | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        norm: Literal["linf", "l2", "none"] | None = None,
        random_start: bool | None = None,
        space: InputSpace | None = None,
        split: Split | None = None,
        bounds: Bounds | None = None,
        at: At = "input",
    ) -> None:
        super().__init__(target, granularity, direction, split, at)
        self._check_used(eps, steps, step_size, norm, random_start, space, bounds)
        self.eps = _USUAL[self.place] if eps is None else eps
        check_positive("eps", self.eps, zero=True)
        if target == "label":
            check_rate("eps", self.eps)
        self.steps = 5 if steps is None else steps
        check_positive("steps", self.steps, zero=True)
        self.norm = "linf" if norm is None else norm
        check_choice("norm", self.norm, ("linf", "l2", "none"))
        self.step_size = (1.0 if norm == "none" else self.eps) / 4 if step_size is None else step_size
        check_positive("step_size", self.step_size, zero=True)
        if self.norm == "none" and self.place == "feature":
            raise ValueError("norm='none' has no bound, which inputs need. Take linf or l2.")
        if target == "loss" and split is not None:
            raise ValueError("split leaves some losses out of weights whose mean is 1. Leave it away.")
        self.random_start = random_start is not False
        self.bounds = bounds
        self.shared = SharedInput(space or InputSpace())

    def _check_used(
        self,
        eps: float | None,
        steps: int | None,
        step_size: float | None,
        norm: str | None,
        random_start: bool | None,
        space: InputSpace | None,
        bounds: Bounds | None,
    ) -> None:
        if self.target in ("label", "loss"):
            self.refuse("solved exactly", steps=steps, step_size=step_size, norm=norm)
        if self.place != "feature":
            self.refuse("which acts on no input", space=space)
        if self.place != "feature" or self.granularity != "sample":
            self.refuse("which acts on no input of its own for each sample", random_start=random_start)
        if self.place not in ("logit", "deep") or self.granularity != "category" or norm == "none":
            self.refuse("which has no balls of categories, in logits or deep features", bounds=bounds)
        if norm == "none":
            self.refuse("with norm='none': it has no ball", eps=eps)
        if bounds is not None:
            self.refuse("with bounds: they say how many steps there are", steps=steps)
            if not step_size:
                raise ValueError(f"bounds={type(bounds).__name__} needs the length of a step. Give step_size above 0.")

    @property
    def needs_counts(self) -> bool:
        """Whether split or bounds read the class frequencies."""
        return (self.bounds is not None and self.bounds.needs_counts) or super().needs_counts

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """The perturbation of inputs that are shared."""
        if self.place == "feature" and self.granularity != "sample":
            self.shared.declare(module, slot)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        """The value with its worst, or best, perturbation."""
        if self.target == "loss":
            return self._reweighted(value, site)
        signs = self.signs(value.detach(), site)
        if self.target == "label":
            return self._moved_label(value, signs, site)
        if self.place != "feature":
            return value + self._walked(value, signs, site)
        if self.granularity == "sample":
            return value + self._attacked(value, signs, site)
        unit = self.shared.space.unit(value, site.module.facts)
        return self.shared.walk(value, signs, site, self.groups(site), self.steps, self._step(unit, self.eps * unit))

    def _step(self, unit: float | Tensor, radius: float | Tensor) -> Step:
        length = self.step_size * unit
        return lambda delta, gradient, sign: bounded_step(delta, gradient, sign, length, radius, self.norm)

    def _walked(self, value: Tensor, signs: Tensor, site: Site) -> Tensor:
        groups = self.groups(site)
        if self.bounds is None:
            return walk(value, signs, site, groups, self.steps, self._step(1.0, self.eps))
        radii = self.bounds.radii(self.eps, value.detach(), site, groups)
        limits = lpl_steps(radii, self.step_size)
        step = self._step(1.0, radii.view(-1, *[1] * (value.ndim - 1)))
        return walk(value, signs, site, groups, int(limits.max()), step, limits)

    def _attacked(self, x: Tensor, signs: Tensor, site: Site) -> Tensor:
        module, space = site.module, self.shared.space
        self.shared.check(x, module)
        low, high = space.bounds(x, module.facts)
        unit = space.unit(x, module.facts)
        radius = self.eps * unit
        start = self._start(x, radius, site) if self.random_start else None
        delta = torch.zeros_like(x)
        with evaluating(module.net):
            for way in (1, -1):
                rows = signs == way
                if rows.any():
                    delta[rows] = pgd(
                        lambda z: module.run(module.net, z),
                        x[rows],
                        site.batch.y[rows],
                        radius,
                        self.step_size * unit,
                        self.steps,
                        self.norm,
                        None if start is None else start[rows],
                        low,
                        high,
                        sign=way,
                    )
        return delta

    def _start(self, x: Tensor, radius: Tensor, site: Site) -> Tensor:
        if self.norm == "linf":
            return uniform_start(site.module.uniform("attack", site.batch, *x.shape[1:]).to(x.dtype), radius)
        normal = site.module.normal("attack", site.batch, *x.shape[1:]).to(x.dtype)
        return l2_start(normal, site.module.uniform("attack radius", site.batch).to(x.dtype), radius)

    def _moved_label(self, target: Tensor, signs: Tensor, site: Site) -> Tensor:
        groups = self.groups(site)
        slope = groups.spread(groups.mean(site.gradient(target)))
        worst = torch.where(signs[:, None] > 0, slope, -slope).argmax(1, keepdim=True)
        goal = torch.zeros_like(target).scatter_(1, worst, 1.0)
        # what a corpus shares may help nobody: then the best is to stay
        gain = signs * groups.spread(groups.mean(site.losses(goal) - site.losses(target)))
        return perturb_label(target, goal, self.eps * (gain > 0).to(target.dtype))

    def _reweighted(self, loss: Tensor, site: Site) -> Tensor:
        groups = self.groups(site)
        sign = -1.0 if self.direction == "positive" else 1.0
        means, samples, own = groups.table(loss)
        rho = bounded_reweighting(means, samples.to(means.dtype), sign, self.eps)
        return loss * (1 + rho[own])
