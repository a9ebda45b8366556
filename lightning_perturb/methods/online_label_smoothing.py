"""Online label smoothing and its unification with bootstrapping."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_rate
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.functional import (
    accumulate,
    class_average,
    mix_bootstrapping_target,
    online_label_smoothing_target,
)


class OnlineLabelSmoothing(PerturbationModule):
    """Labels mixed with the class's average prediction of the epoch before [tax 68-69].

    Args:
        alpha: Weight of the soft label (published code: 0.5).
        confidence: ``correct`` averages correctly predicted samples only (published code), ``one`` all [tax 69].
        first_epoch: Soft labels of the first epoch: ``uniform``, or ``zeros`` (published CIFAR script, where the loss
            is then (1 - alpha) times cross-entropy).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("label", ("positive", "negative"), "prior", "category")

    soft: Tensor
    sums: Tensor
    weights: Tensor

    def __init__(
        self,
        *args: Any,
        alpha: float = 0.5,
        confidence: Literal["correct", "one"] = "correct",
        first_epoch: Literal["uniform", "zeros"] = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_rate("alpha", alpha)
        check_choice("confidence", confidence, ("correct", "one"))
        check_choice("first_epoch", first_epoch, ("uniform", "zeros"))
        self.alpha = alpha
        self.confidence = confidence
        classes = self.num_classes
        value = 1.0 / classes if first_epoch == "uniform" else 0.0
        self.add_state("soft", torch.full((classes, classes), value))
        self.add_state("sums", torch.zeros(classes, classes))
        self.add_state("weights", torch.zeros(classes))

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - α) e_y + α S_y."""
        return online_label_smoothing_target(batch.y, self.soft, self.alpha)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Adds the batch's predictions to the averages of the running epoch, over all ranks."""
        prob, target = gather_rows(outputs["logits"].detach().float().softmax(1), batch.y)
        sums, weights = accumulate(prob, target, self.num_classes, self.confidence)
        self.sums += sums
        self.weights += weights

    def start_epoch(self) -> None:
        """Puts the averages of the epoch before in use."""
        if self._started_epoch >= 0:
            self.soft.copy_(class_average(self.sums, self.weights))
        self.sums.zero_()
        self.weights.zero_()


class MixBootstrapping(OnlineLabelSmoothing):
    """One loss between soft bootstrapping (β = 0) and online label smoothing (β = 1) [tax 67].

    Args:
        alpha: α, how far labels move.
        beta: β, share of the class average against the sample's own prediction.
        detach_target: Treat the prediction inside the label as a constant.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.OnlineLabelSmoothing`.
    """

    coordinates = Coordinates.of("label", ("positive", "negative"), "prior", ("sample", "category"))

    def __init__(
        self, *args: Any, alpha: float = 0.5, beta: float = 0.5, detach_target: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, alpha=alpha, **kwargs)
        check_rate("beta", beta)
        self.beta = beta
        self.detach_target = detach_target

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """y + α (β p̃_y + (1 - β) p - y)."""
        return mix_bootstrapping_target(logits, batch.y, self.soft, self.alpha, self.beta, self.detach_target)
