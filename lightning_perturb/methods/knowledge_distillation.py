"""Knowledge distillation: a student learns from the labels and from a trained teacher's predictions."""

from typing import Any

from torch import Tensor, nn

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.teacher import Teacher
from lightning_perturb.functional import knowledge_distillation_loss


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
        teacher = batch.extra["teacher_logits"]
        return knowledge_distillation_loss(logits, target, teacher, self.lam, self.temperature)
