"""Cells whose perturbation is free, at a price."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.functional import logpert, priced_label, priced_loss_change, priced_step, shared_slack
from lightning_perturb.lattice.cell import At, Direction, Granularity, SplitCell, Target
from lightning_perturb.lattice.shared import SharedInput, walk
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import Split

_USUAL = {"feature": 0.1, "deep": 0.1, "logit": 0.175, "label": 2.0, "loss": 2.0}
# cross-entropy in the logits bends by at most 1/2, so this step never overshoots
_LOGIT_STEP = 2.0
_FEATURE_STEP = 0.1


class Regularization(SplitCell):
    """The perturbation that minimises loss plus price, or maximises loss minus price [tax 27, 52-55].

    Exact where a closed form exists: logits of samples at an l1 price (LogPert), labels, and losses (the weights of
    self-paced learning). Other logits and features walk by proximal gradient steps; an input's perturbation that is
    shared is kept from batch to batch. The loss of the corpus gets the slack of nu-SVM, max(0, l - ξ).

    Args:
        target: As of :class:`~lightning_perturb.lattice.Cell`.
        granularity: As of :class:`~lightning_perturb.lattice.Cell`.
        direction: As of :class:`~lightning_perturb.lattice.Cell`.
        lam: λ, the price. None takes 0.1 (features), 0.175 (logits), 2 (labels, losses) and 0.5 (loss of the corpus).
        penalty: What is charged: ``l1``, ``l2`` (the length) or ``squared`` (half the squared length). None takes l1
            for logits and losses, l2 for features, squared for labels and wherever losses rise: at the other prices a
            loss that rises would do so without end.
        steps: Steps of features and logits in each batch; None takes 10.
        step_size: Size of a step; None takes 2 for logits, 0.1 for features.
        space: Units and limits of inputs; None takes the input's own units, with no limits.
        split: As of :class:`~lightning_perturb.lattice.SplitCell`.
        at: As of :class:`~lightning_perturb.lattice.Cell`.

    Raises:
        ValueError: If a number is out of range, the penalty has no solution for the target or the direction, or an
            argument is given that the target does not use.
    """

    inference: ClassVar[str] = "regularization"

    def __init__(
        self,
        target: Target,
        granularity: Granularity = "sample",
        direction: Direction = "positive",
        lam: float | None = None,
        penalty: Literal["l1", "l2", "squared"] | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        space: InputSpace | None = None,
        split: Split | None = None,
        at: At = "input",
    ) -> None:
        super().__init__(target, granularity, direction, split, at)
        self._slack = target == "loss" and granularity == "corpus"
        self.lam = (0.5 if self._slack else _USUAL[self.place]) if lam is None else lam
        check_positive("lam", self.lam)
        self.penalty = self._usual_penalty() if penalty is None else penalty
        check_choice("penalty", self.penalty, ("l1", "l2", "squared"))
        legal = {"label": ("squared",), "loss": ("l1",) if self._slack else ("l1", "squared")}.get(target)
        if legal is not None and self.penalty not in legal:
            raise ValueError(f"penalty={penalty!r} is not solved for {self}. Take {' or '.join(legal)}.")
        if direction != "positive" and self.penalty != "squared":
            raise ValueError(
                f"penalty={penalty!r} does not hold losses that rise: they would do so without end. Take squared."
            )
        self._exact = target in ("label", "loss") or (
            target == "logit" and granularity == "sample" and self.penalty == "l1"
        )
        if self._exact:
            self.refuse("solved exactly", steps=steps, step_size=step_size)
        if self.place != "feature":
            self.refuse("which acts on no input", space=space)
        self.steps = 10 if steps is None else steps
        check_positive("steps", self.steps, zero=True)
        self.step_size = (_FEATURE_STEP if target == "feature" else _LOGIT_STEP) if step_size is None else step_size
        check_positive("step_size", self.step_size)
        self.shared = SharedInput(space or InputSpace("input", clip=False))

    def _usual_penalty(self) -> Literal["l1", "l2", "squared"]:
        if self.target == "label" or self.direction != "positive":
            return "squared"
        return "l2" if self.target == "feature" else "l1"

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """The perturbation of inputs that are shared."""
        if self.place == "feature" and self.granularity != "sample":
            self.shared.declare(module, slot)

    def __call__(self, value: Tensor, site: Site) -> Tensor:
        """The value with its best perturbation at the price."""
        if self._slack:
            return (value - shared_slack(gather_rows(value.detach())[0], self.lam)).clamp(min=0)
        signs = self.signs(value.detach(), site)
        groups = self.groups(site)
        if self.target == "loss":
            mean, sign = groups.mean(value), groups.mean(signs).to(value.dtype)
            return value * (1 + groups.spread(priced_loss_change(mean, sign, self.lam, self.penalty)))
        if self.target == "label":
            log_prob = groups.spread(groups.mean(-site.gradient(value)))
            return priced_label(value, log_prob, signs, self.lam)
        if self._exact:
            v = logpert(value, site.ids(self), self.lam)
            return value + v * (signs[:, None] != 0)
        if self.place != "feature":
            return value + walk(value, signs, site, groups, self.steps, self._step)
        unit = self.shared.space.unit(value, site.module.facts)

        def step(delta: Tensor, gradient: Tensor, sign: Tensor) -> Tensor:
            # in the units of the space, where the price is one
            return self._step(delta / unit, gradient * unit, sign) * unit

        if self.granularity != "sample":
            return self.shared.walk(value, signs, site, groups, self.steps, step)
        self.shared.check(value, site.module)
        delta = torch.zeros_like(value)
        for _ in range(self.steps):
            delta = step(delta, site.gradient(self.shared.space.clipped(value + delta, site.module.facts)), signs)
        return self.shared.space.clipped(value + delta, site.module.facts)

    def _step(self, delta: Tensor, gradient: Tensor, sign: Tensor) -> Tensor:
        return priced_step(delta, gradient, sign, self.step_size, self.lam, self.penalty)
