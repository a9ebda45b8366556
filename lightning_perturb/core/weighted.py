"""The base of methods that multiply each sample's loss by a weight that is known before training."""

from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.deferred import DeferredModule
from lightning_perturb.core.distributed import mean_over_ranks


class WeightedModule(DeferredModule):
    """A method that multiplies each sample's loss by a weight.

    Args:
        from_epoch: First epoch with weights; before, all are 1 (deferred re-weighting, DRW).
        normalise: ``none``: the plain mean of the weighted losses. ``batch``: their sum over the sum of the weights in
            the batch, on all ranks, as PyTorch's weighted cross-entropy has it.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    def __init__(
        self, *args: Any, from_epoch: int = 0, normalise: Literal["none", "batch"] = "none", **kwargs: Any
    ) -> None:
        super().__init__(*args, from_epoch=from_epoch, **kwargs)
        check_choice("normalise", normalise, ("none", "batch"))
        self.normalise = normalise

    def sample_weights(self, batch: Batch) -> Tensor:
        """The weights of the samples ``[B]``."""
        raise NotImplementedError(f"{type(self).__name__} must say what its weights are.")

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w l, over the mean of w in the batch where it is normalised by it."""
        loss = super().perturb_loss(loss, logits, batch)
        if self.phase != "deferred":
            return loss
        weights = self.sample_weights(batch).to(loss.dtype)
        return loss * (weights / mean_over_ranks(weights.mean()) if self.normalise == "batch" else weights)
