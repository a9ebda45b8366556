"""IADA: features augmented around adversarial and anti-adversarial shifts, in closed form [iada 1-6]."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.covariances import CovarianceModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.named import named_function
from lightning_perturb.functional import (
    Observation,
    adversarial_logits,
    cross_entropy,
    isda_perturbation,
    log_prior,
    regularization_term,
    strategies,
    update_class_average,
)

STRATEGIES = (
    strategies.tail_adversarial,
    strategies.doubted_anti_adversarial,
    strategies.all_adversarial,
    strategies.all_anti_adversarial,
)
# weight of the old value in the running means by class and sample
_MOMENTUM = 0.9


class IADA(CovarianceModule, CountedModule):
    """Implicit adversarial data augmentation with a given strategy [iada 6].

    The cross-entropy of u_j + ε_i w_jᵀ s_i + α R[y_i, j] + β log π_j: s_i is the sign of the cross-entropy's gradient
    in the features, R the term of ISDA, π the shares of the given labels. ε_i > 0 perturbs a sample adversarially,
    ε_i < 0 anti-adversarially; the paper learns it (:class:`~lightning_perturb.methods.MetaIADA`), here a rule gives
    it. Evaluation reads the plain logits.

    Each of the three parts can be switched off [iada Table 7]. What they add to the loss to first order, the terms of
    the paper's Table 1 without their weights α and β, is logged as ``train/generalization``, ``train/robustness`` and
    ``train/fairness``; ε is in what a step returns, as ``epsilon``.

    Args:
        strategy: The rule for ε, a function from an :class:`~lightning_perturb.functional.Observation` to one number
            from -1 to 1 a sample: ``tail_adversarial`` (by class frequency), ``doubted_anti_adversarial`` (by the
            sample's history), ``all_adversarial``, ``all_anti_adversarial``, or the import path of your own. None is
            ε = 0. The rules are ours.
        eps_scale: Factor of ε. It moves every feature, so that its effect grows with their number and with the
            classifier's weight: the more features, the smaller.
        alpha: α, spread of the augmentation; the paper searches {0.1, 0.25, 0.5, 0.75, 1}.
        beta: β, weight of the class prior.
        generalization: Have the part α R.
        robustness: Have the part ε w s.
        fairness: Have the part β log π.
        ramp: ``constant`` α as in the paper, or ``linear``: it grows with the epoch, as in ISDA and MetaSAug.
        **kwargs: ``class_counts`` of :class:`~lightning_perturb.core.counts.CountedModule`, and arguments of
            :class:`~lightning_perturb.core.covariances.CovarianceModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "prior", ("sample", "category"))
    paper = "iada"

    class_loss: Tensor
    label_history: Tensor

    def __init__(
        self,
        *args: Any,
        strategy: str | None = "tail_adversarial",
        eps_scale: float = 0.1,
        alpha: float = 0.5,
        beta: float = 1.0,
        generalization: bool = True,
        robustness: bool = True,
        fairness: bool = True,
        ramp: Literal["linear", "constant"] = "constant",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, ramp=ramp, **kwargs)
        check_positive("eps_scale", eps_scale)
        check_positive("alpha", alpha, zero=True)
        check_positive("beta", beta, zero=True)
        self.strategy = None if strategy is None else named_function("strategy", strategy, STRATEGIES)
        self.eps_scale = eps_scale
        self.alpha = alpha
        self.beta = beta
        self.generalization = generalization
        self.robustness = robustness
        self.fairness = fairness
        # an untrained network predicts all classes alike
        self.add_state("class_loss", torch.full((self.num_classes,), float(self.num_classes)).log())
        self.add_sample_state("label_history", fill=1 / self.num_classes)

    @property
    def log_prior(self) -> Tensor:
        """log π of the given labels ``[C]``."""
        return log_prior(self.class_counts.to(self.dtype))

    def observe(self, outputs: dict[str, Tensor], batch: Batch) -> Observation:
        """What is known of a batch before its step, all of it constant."""
        variance = self.feature_covariance
        if variance.ndim == 3:
            variance = variance.diagonal(dim1=1, dim2=2)
        history = None if batch.index is None else self.read_sample_state("label_history", batch.index)
        return Observation(
            outputs["logits"],
            batch.y,
            outputs["features"],
            outputs["weight"],
            self.log_prior,
            self.class_loss,
            self.feature_mean,
            variance,
            history,
        )

    def epsilon(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """ε of each sample ``[B]``: above 0 adversarial, below anti-adversarial."""
        if self.strategy is None:
            return torch.zeros_like(outputs["logits"][:, 0])
        with torch.no_grad():
            found: Tensor = self.eps_scale * self.strategy(self.observe(outputs, batch))
        if found.shape != batch.y.shape:
            raise ValueError(
                f"strategy={getattr(self.strategy, '__name__', self.strategy)!r} returned the shape "
                f"{tuple(found.shape)}. Return one number per sample, [{len(batch)}]."
            )
        return found

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The logits of [iada 6], part by part."""
        start = perturbed = super().perturb_logits(logits, outputs, batch)
        raw, weight, y = outputs["logits"], outputs["weight"], batch.y
        if self.generalization:
            spread = isda_perturbation(weight, self.covariances(outputs, batch), y)
            perturbed = perturbed + self.ramped(self.alpha) * spread
            self._note("generalization", spread, raw, batch)
        if self.robustness:
            epsilon = self.epsilon(outputs, batch)
            self.tell(batch, "epsilon", epsilon)
            shift = epsilon[:, None] * adversarial_logits(raw, y, weight)
            perturbed = perturbed + shift
            self._note("robustness", shift, raw, batch)
        if self.fairness:
            perturbed = perturbed + self.beta * self.log_prior
            self._note("fairness", self.log_prior, raw, batch)
        batch.extra["perturbation_norm"] = (perturbed - start).detach().abs().sum(1)
        return perturbed

    @torch.no_grad()
    def _note(self, part: str, shift: Tensor, raw: Tensor, batch: Batch) -> None:
        batch.extra[f"{part}_term"] = regularization_term(raw, batch.y, shift)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Logs the three terms, and takes the batch into the statistics and running means."""
        super().update_state(outputs, batch)
        for part in ("generalization", "robustness", "fairness"):
            term = batch.extra.get(f"{part}_term")
            if term is not None:
                self.log(f"train/{part}", term.mean(), on_step=False, on_epoch=True, batch_size=len(batch),
                         sync_dist=True)  # fmt: skip
        losses = cross_entropy(outputs["logits"].detach(), batch.y)
        everyone, target = gather_rows(losses, batch.y)
        self.class_loss.copy_(update_class_average(self.class_loss, everyone, target, _MOMENTUM))
        if batch.index is not None:
            past = self.read_sample_state("label_history", batch.index)
            present = losses.neg().exp().to(past.dtype)
            self.write_state("label_history", batch.index, torch.lerp(present, past, _MOMENTUM))
