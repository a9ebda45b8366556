"""MbLS: margin-based label smoothing."""

from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.functional import mbls_penalty


class MbLS(PerturbationModule):
    """A penalty on logits that fall behind the largest by more than a margin.

    Args:
        margin: Distance that costs nothing (published: 10).
        alpha: Weight of the penalty (published: 0.1).
        reduction: Over classes: ``mean`` (published code) or ``sum`` (paper).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "regularization", "sample")

    def __init__(
        self,
        *args: Any,
        margin: float = 10.0,
        alpha: float = 0.1,
        reduction: Literal["mean", "sum"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("margin", margin, zero=True)
        check_positive("alpha", alpha, zero=True)
        check_choice("reduction", reduction, ("mean", "sum"))
        self.margin = margin
        self.alpha = alpha
        self.reduction = reduction

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + α Σ_j max(0, max_k u_k - u_j - m)."""
        return loss + self.alpha * mbls_penalty(logits, self.margin, self.reduction)
