"""Knowledge distillation: a student learns from the labels and from a trained teacher's predictions."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.deferred import DeferredModule
from lightning_perturb.core.teacher import Teacher
from lightning_perturb.functional import (
    balanced_teacher_logits,
    effective_number_weights,
    knowledge_distillation_loss,
)


class KnowledgeDistillation(PerturbationModule):
    """Cross-entropy plus λ T² KL between a teacher's and the student's tempered predictions [tax 14, 15].

    The teacher is frozen, runs in evaluation mode on the student's augmented input, and is no part of the student: no
    optimizer, checkpoint or parameter count sees it, and a run that is resumed needs it again.

    Args:
        teacher: A network, a method of this package, or the checkpoint of one. Needed for training alone.
        lam: λ, weight of the teacher.
        temperature: T of both predictions.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "prior", "sample")
    training_only = ("teacher",)

    def __init__(
        self,
        *args: Any,
        teacher: nn.Module | str | None = None,
        lam: float = 1.0,
        temperature: float = 4.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("lam", lam, zero=True)
        check_positive("temperature", temperature)
        self.lam = lam
        self.temperature = temperature
        self._teacher = Teacher(teacher)

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher.

        Raises:
            ValueError: If none was given.
            FileNotFoundError: If its checkpoint does not exist.
        """
        return self._teacher.net

    def setup(self, stage: str) -> None:
        """As in the base; opens the teacher."""
        super().setup(stage)
        if stage == "fit":
            self._teacher.net  # noqa: B018 - opens it

    def on_fit_start(self) -> None:
        """Brings the teacher to this device."""
        super().on_fit_start()
        self._teacher.on(self)

    def perturb_input(self, batch: Batch) -> Batch:
        """Keeps the teacher's logits."""
        batch.extra["teacher_logits"] = self._teacher.logits(self, batch.view)
        return batch

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """CE + λ T² KL."""
        return knowledge_distillation_loss(logits, target, self.taught(batch), self.lam, self.temperature)

    def taught(self, batch: Batch) -> Tensor:
        """The logits that are taught ``[B, C]``: the teacher's."""
        return batch.extra["teacher_logits"]


class BalancedKnowledgeDistillation(KnowledgeDistillation, DeferredModule, CountedModule):
    """Distillation of a teacher whose predictions are weighted by class (Zhang et al., 2023) [iada Tables 2-4].

    Cross-entropy plus λ T² KL. The teacher's tempered prediction is multiplied by the effective-number weights of the
    classes and normalised again; the cross-entropy is not weighted. The authors' teacher is the same network, trained
    by cross-entropy on the same long tail.

    Args:
        lam: λ, weight of the teacher.
        temperature: T of both predictions.
        beta: β of the effective number of samples, in [0, 1); 0 weights all classes alike.
        from_epoch: First epoch with the weights: 160 of 200 for CIFAR-10-LT, 0 for CIFAR-100-LT.
        **kwargs: ``teacher`` of :class:`~lightning_perturb.methods.KnowledgeDistillation`, ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`, and arguments of
            :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "prior", ("category", "sample"))

    class_weight: Tensor

    def __init__(
        self,
        *args: Any,
        lam: float = 1.0,
        temperature: float = 2.0,
        beta: float = 0.9999,
        from_epoch: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lam=lam, temperature=temperature, from_epoch=from_epoch, **kwargs)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.beta = beta
        self.add_state("class_weight", torch.ones(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The weights."""
        super().use_counts(counts)
        self.class_weight.copy_(effective_number_weights(counts, self.beta))

    def taught(self, batch: Batch) -> Tensor:
        """The teacher's logits, balanced."""
        teacher = super().taught(batch)
        if self.phase != "deferred":
            return teacher
        return balanced_teacher_logits(teacher, self.class_weight, self.temperature)
