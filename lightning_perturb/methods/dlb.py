"""DLB: self-distillation from the last mini-batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule
from lightning_perturb.functional import cross_entropy, dlb_loss


class DLB(PerturbationModule):
    """Self-distillation from the last mini-batch: its samples come again in a second view and imitate their first.

    Each step runs the first view of this batch and the second view of the batch before; the loss is their joint
    cross-entropy plus ``alpha`` T² KL between the logits kept from the step before and the new ones.

    Args:
        temperature: T of both distributions (published: 3).
        alpha: Weight of the distillation (published: 1).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "prior", "sample")
    needs = Needs(views=2)

    def __init__(self, *args: Any, temperature: float = 3.0, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("temperature", temperature)
        check_positive("alpha", alpha, zero=True)
        self.temperature = temperature
        self.alpha = alpha

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits of this batch's first view, and of the last batch's second view once there is one.

        Beside the latter stand that batch's labels and the logits of its first view.
        """
        outputs = super().outputs(call, batch)
        last = self.kept_on_rank("x")
        if last is not None and self.phase != "warmup":
            last_y, teacher = self.kept_on_rank("y"), self.kept_on_rank("logits")
            assert last_y is not None
            assert teacher is not None
            outputs.update(last_logits=self.run(call, last), last_y=last_y, last_teacher=teacher)
        return outputs

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Joint cross-entropy and distillation."""
        if "last_logits" not in outputs:
            return super().loss(outputs, batch)
        _, plain = self._joint(outputs, batch)
        return plain.mean() + self._distillation(outputs).mean()

    def _joint(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels and cross-entropies of both batches."""
        y = torch.cat([batch.y, outputs["last_y"]])
        return y, cross_entropy(torch.cat([outputs["logits"], outputs["last_logits"]]), y)

    def _distillation(self, outputs: dict[str, Tensor]) -> Tensor:
        return self.alpha * dlb_loss(outputs["last_logits"], outputs["last_teacher"], self.temperature)

    def compared(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor] | None:
        """Labels, l and l' of both batches, of which the last one alone is distilled."""
        if "last_logits" not in outputs:
            return super().compared(outputs, batch)
        y, plain = self._joint(outputs, batch)
        distilled = self._distillation(outputs)
        # the mean of l is over both batches, that of the distillation over one
        raised = distilled * (len(plain) / len(distilled))
        return y, plain, torch.cat([plain[: len(batch)], plain[len(batch) :] + raised])

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Keeps this batch for the next step."""
        self.keep_on_rank("x", batch.x[1])  # type: ignore[index]
        self.keep_on_rank("y", batch.y)
        self.keep_on_rank("logits", outputs["logits"])
