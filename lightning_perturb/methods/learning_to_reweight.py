"""Learning to reweight: the weight of a sample is how far it leads towards a lower loss of clean samples."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.batch_learned import BatchLearnedModule
from lightning_perturb.core.distributed import world_size


class L2RW(BatchLearnedModule):
    """Sample weights from the gradients of one batch (Ren et al., 2018), L2RW in [iada Table 5]; nothing is kept.

    The virtual step is that of sum_i eps_i l_i at eps = 0, where the network stays as it is. The derivative of the meta
    loss there, -dM/deps_i, is the agreement of the sample's gradient with the meta batch's. Where it is positive it is
    the sample's weight, the others have none, and the weights of the batch of all devices sum to 1.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`; ``meta_every`` must be 1, since
            weights are those of one batch, and there is no parameter for ``meta_optimizer``.

    Raises:
        ValueError: If ``meta_every`` is not 1.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "meta", "sample")
    paper = "iada"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.meta_every != 1:
            raise ValueError(
                f"meta_every={self.meta_every} leaves batches without weights, which {type(self).__name__} keeps for "
                "one batch. Set meta_every to 1, or take MetaWeightNet."
            )

    def moved(self, gradient: Tensor) -> Tensor:
        """max(-dM/deps, 0) over its sum; all 0 where no sample leads to a lower loss."""
        agreeing = (-gradient).clamp(min=0)
        total = agreeing.sum()
        return agreeing / torch.where(total > 0, total, 1.0)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w_i l_i, times the number of samples that the mean is then taken over."""
        loss = super().perturb_loss(loss, logits, batch)
        # the mean is over this device's samples, then over devices
        relative = self.learned(batch) * (len(batch) * world_size())
        self.tell(batch, "hyperparameter/weight", relative)
        return relative * loss
