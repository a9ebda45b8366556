"""The base of methods that learn one number of each sample, for one batch alone."""

import torch
from torch import Tensor

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.meta import MetaPerturbationModule


class BatchLearnedModule(MetaPerturbationModule):
    """A method with a number ε of each sample that is learned for one batch, on clean samples, and then forgotten.

    ε is 0 in the virtual step. What it is in the real one follows from dM/dε of the samples of all devices.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`.
    """

    _learned: Tensor

    @property
    def learns(self) -> bool:
        """Always: the numbers of each batch."""
        return True

    def moved(self, gradient: Tensor) -> Tensor:
        """ε in the real step, from dM/dε at 0, of the samples of all devices ``[N]``."""
        raise NotImplementedError(f"{type(self).__name__} must say how its numbers follow from their gradient.")

    def learned(self, batch: Batch) -> Tensor:
        """ε of this device's samples ``[B]``; 0 in a batch without a meta step."""
        return self._learned[batch.extra["place"]]

    def perturb_input(self, batch: Batch) -> Batch:
        """The same; counts the samples of all devices, and finds the own ones among them."""
        batch = super().perturb_input(batch)
        (everyone,), mine = gather_batch(batch.y)
        batch.extra["place"] = torch.arange(mine.start, mine.stop, device=batch.y.device)
        self._learned = torch.zeros(len(everyone), device=batch.y.device).to(self.dtype)
        return batch

    def transient(self) -> list[Tensor]:
        """ε = 0 of the samples of all devices, after what others learn for one batch."""
        self._learned = torch.zeros_like(self._learned).requires_grad_()
        return [*super().transient(), self._learned]

    def move_transient(self, gradients: list[Tensor]) -> None:
        """What :meth:`moved` says."""
        *gradients, own = gradients
        self._learned = self.moved(own)
        super().move_transient(gradients)
