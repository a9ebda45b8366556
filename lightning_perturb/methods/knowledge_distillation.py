"""Knowledge distillation: a student learns from the labels and from a trained teacher's predictions."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.load import load
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
        # in a tuple, a module is not registered as a part of this one
        self._teacher: tuple[nn.Module | str | None] = (teacher,)

    @property
    def teacher(self) -> nn.Module:
        """The frozen teacher.

        Raises:
            ValueError: If none was given.
            FileNotFoundError: If its checkpoint does not exist.
        """
        (found,) = self._teacher
        if found is None:
            raise ValueError(
                "teacher=None has nothing to teach. Give teacher= a checkpoint of this package, such as "
                "logs/.../last.ckpt, or in Python a trained network."
            )
        if isinstance(found, str):
            if not Path(found).is_file():
                raise FileNotFoundError(f"teacher={found!r} is not a file. Give the checkpoint of a trained method.")
            found = load(found)
            self._teacher = (found,)
        return found

    def setup(self, stage: str) -> None:
        """As in the base; opens the teacher."""
        super().setup(stage)
        if stage == "fit":
            self.teacher.eval()

    def on_fit_start(self) -> None:
        """Brings the teacher to this device."""
        super().on_fit_start()
        self.teacher.to(self.device)
        if self.channels_last:
            self.teacher.to(memory_format=torch.channels_last)

    def perturb_input(self, batch: Batch) -> Batch:
        """Keeps the teacher's logits."""
        with torch.no_grad():
            logits = self._taught(batch.view)
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        batch.extra["teacher_logits"] = logits
        return batch

    def _taught(self, x: Any) -> Tensor:
        try:
            return self.run(self.teacher, x)
        except ValueError as error:
            raise ValueError(
                f"teacher={type(self.teacher).__name__} does not give (B, {self.num_classes}) on the student's input. "
                "Give a teacher of the same classes and the same inputs."
            ) from error

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """CE + λ T² KL."""
        teacher = batch.extra["teacher_logits"]
        return knowledge_distillation_loss(logits, target, teacher, self.lam, self.temperature)
