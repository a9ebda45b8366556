"""LogPert: regularized sample-level logit perturbation [tax section 5.1, Algorithm 1]."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive, check_range, check_used
from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule
from lightning_perturb.core.distributed import gather_rows, world_size
from lightning_perturb.functional import logit_gradient, logpert, logpert_step

# the published effective step of one visit and the published raw rate [released image code]
_STEP = {"alternating": 0.469, "joint": 6.0}


class LogPert(PerturbationModule):
    """A logit perturbation v per training sample under an l1 penalty [tax 53].

    ``exact`` solves the inner problem [tax 54] in closed form: only the given class moves, nothing is stored, and the
    loss becomes cross-entropy whose gradient is capped at ``lam``. ``alternating`` is Algorithm 1 with stored
    perturbations; ``joint`` is the released code, which moves v and the network in one step.

    Args:
        lam: λ, the price of a perturbation; smaller forgives more. In (0, 1) for ``exact`` (from 1 on nothing is
            perturbed). The paper searches {0.175, 0.35}.
        update: How v is found: ``exact``, ``alternating`` (paper) or ``joint`` (released code).
        pert_lr: Rate of v. None takes 0.469 for ``alternating`` (the released code's effective step on one sample) and
            6 for ``joint``. Not for ``exact``.
        pert_momentum: Momentum of v in ``joint`` (released code: 0.9); it also moves rows that are not in the batch.
        inner_steps: Steps on v for each batch in ``alternating``.
        l1_solver: ``subgradient`` (released code) or ``prox`` (soft threshold, exact zeros), for ``alternating``.
        l1_reduction: ``sample_mean`` (paper, released image code) or ``batch_sum`` (released text code: the penalty is
            not divided by the batch size).
        pert_lr_follows_schedule: Let the learning-rate scheduler scale ``pert_lr`` too, as the released code does.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("logit", "positive", "regularization", "sample")

    perturbation: Tensor
    velocity: Tensor

    def __init__(
        self,
        *args: Any,
        lam: float = 0.175,
        update: Literal["exact", "alternating", "joint"] = "exact",
        pert_lr: float | None = None,
        pert_momentum: float = 0.9,
        inner_steps: int = 1,
        l1_solver: Literal["subgradient", "prox"] = "subgradient",
        l1_reduction: Literal["sample_mean", "batch_sum"] = "sample_mean",
        pert_lr_follows_schedule: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("lam", lam)
        check_choice("update", update, ("exact", "alternating", "joint"))
        check_choice("l1_solver", l1_solver, ("subgradient", "prox"))
        check_choice("l1_reduction", l1_reduction, ("sample_mean", "batch_sum"))
        check_range("pert_momentum", pert_momentum, 0.0, 1.0, open_high=True)
        check_positive("inner_steps", inner_steps)
        if pert_lr is not None:
            check_positive("pert_lr", pert_lr)
        used = (
            ("pert_lr", pert_lr, None, ("alternating", "joint")),
            ("pert_momentum", pert_momentum, 0.9, ("joint",)),
            ("inner_steps", inner_steps, 1, ("alternating",)),
            ("l1_solver", l1_solver, "subgradient", ("alternating",)),
            ("l1_reduction", l1_reduction, "sample_mean", ("alternating", "joint")),
            ("pert_lr_follows_schedule", pert_lr_follows_schedule, True, ("alternating", "joint")),
        )
        for name, value, default, updates in used:
            check_used(name, value, default, "update", update, updates)
        self.lam = lam
        self.update = update
        self.pert_lr = pert_lr if pert_lr is not None else _STEP.get(update, 0.0)
        self.pert_momentum = pert_momentum
        self.inner_steps = inner_steps
        self.l1_solver = l1_solver
        self.l1_reduction = l1_reduction
        self.pert_lr_follows_schedule = pert_lr_follows_schedule
        if update != "exact":
            self.needs = Needs(index=True)
            self.add_sample_state("perturbation", self.num_classes)
        if update == "joint":
            self.add_sample_state("velocity", self.num_classes)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + v."""
        with torch.no_grad():
            v = self._perturbation(logits.detach(), batch)
            batch.extra["perturbation_norm"] = v.abs().sum(1)
        return logits + v

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Stores what the batch moved."""
        if self.phase == "warmup" or self.update == "exact":
            return
        if self.update == "alternating":
            self.write_state("perturbation", self.indices(batch), batch.extra["logit_perturbation"])
        else:
            self._joint_step(outputs["logits"], batch)

    def _perturbation(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.update == "exact":
            return logpert(logits, batch.y, self.lam)
        v = self.read_sample_state("perturbation", self.indices(batch))
        if self.update == "alternating":
            # a schedule that warms up starts at 0, where there is no step
            rate = self._rate()
            for _ in range(self.inner_steps if rate > 0 else 0):
                v = logpert_step(logits, v, batch.y, self._lam(batch), rate, self.l1_solver)
            batch.extra["logit_perturbation"] = v
        return v

    def _joint_step(self, logits: Tensor, batch: Batch) -> None:
        # the gradient of the batch-mean loss in v, for all rows at once: rows out of the batch go on by momentum
        index = self.indices(batch)
        v = self.perturbation[index]
        gradient = logit_gradient(logits + v, batch.y) + self._lam(batch) * v.sign()
        index, gradient = gather_rows(index, gradient)
        self.velocity.mul_(self.pert_momentum).index_add_(0, index, gradient / len(index))
        self.perturbation.sub_(self._rate() * self.velocity)

    def _lam(self, batch: Batch) -> float:
        return self.lam * (len(batch) * world_size() if self.l1_reduction == "batch_sum" else 1)

    def _rate(self) -> float:
        if not self.pert_lr_follows_schedule:
            return self.pert_lr
        rate: float = self.trainer.optimizers[0].param_groups[0]["lr"]
        return self.pert_lr * (rate / self._first_rate if self._first_rate else 1.0)
