"""Learning to reweight: the weight of a sample is how far it leads towards a lower loss of clean samples."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.distributed import gather_batch, world_size


class L2RW(MetaPerturbationModule):
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

    _weights: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.meta_every != 1:
            raise ValueError(
                f"meta_every={self.meta_every} leaves batches without weights, which {type(self).__name__} keeps for "
                "one batch. Set meta_every to 1, or take MetaWeightNet."
            )

    @property
    def learns(self) -> bool:
        """Always: the weights of each batch."""
        return True

    def perturb_input(self, batch: Batch) -> Batch:
        """The same; counts the samples of all devices, and finds the own ones among them."""
        batch = super().perturb_input(batch)
        (everyone,), mine = gather_batch(batch.y)
        batch.extra["place"] = torch.arange(mine.start, mine.stop, device=batch.y.device)
        self._weights = torch.zeros(len(everyone), device=batch.y.device).to(self.dtype)
        return batch

    def transient(self) -> list[Tensor]:
        """eps = 0 of the samples of all devices."""
        self._weights = torch.zeros_like(self._weights).requires_grad_()
        return [self._weights]

    def move_transient(self, gradients: list[Tensor]) -> None:
        """max(-dM/deps, 0) over its sum; all 0 where no sample leads to a lower loss."""
        agreeing = (-gradients[0]).clamp(min=0)
        total = agreeing.sum()
        self._weights = agreeing / torch.where(total > 0, total, 1.0)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w_i l_i, times the number of samples that the mean is then taken over."""
        loss = super().perturb_loss(loss, logits, batch)
        weights = self._weights[batch.extra["place"]]
        # the mean is over this device's samples, then over devices
        relative = weights * (len(batch) * world_size())
        self.tell(batch, "hyperparameter/weight", relative)
        return relative * loss
