"""The base of methods with two networks that train on the samples of small loss."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core.distributed import gather_batch, world_size
from lightning_perturb.core.two_networks import TwoNetworkModule
from lightning_perturb.functional.small_loss import keep_rate, small_loss


class SmallLossModule(TwoNetworkModule):
    """Two networks that train on the share R(T) = 1 - tau min(T^c / T_k, 1) of small losses in a batch.

    The batch is that of all devices. T counts epochs from the end of the warm-up.

    Args:
        forget_rate: tau, the share of the samples that is dropped in the end: the rate of the noise, which the authors
            know.
        gradual_epochs: T_k, epochs until that many are dropped (with ``exponent`` 1).
        exponent: c.
        **kwargs: Arguments of :class:`~lightning_perturb.core.two_networks.TwoNetworkModule`.
    """

    def __init__(
        self,
        *args: Any,
        forget_rate: float = 0.2,
        gradual_epochs: int = 10,
        exponent: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_range("forget_rate", forget_rate, 0.0, 1.0, open_high=True)
        check_positive("gradual_epochs", gradual_epochs)
        check_positive("exponent", exponent)
        self.forget_rate = forget_rate
        self.gradual_epochs = gradual_epochs
        self.exponent = exponent

    def weights(self, losses: Tensor) -> Tensor:
        """Weights ``[B]`` by which a mean over samples and devices becomes one over the samples of small loss.

        Args:
            losses: The losses that choose ``[B]``.
        """
        rate = keep_rate(self.current_epoch - self.warmup_epochs, self.forget_rate, self.gradual_epochs, self.exponent)
        (everyone,), mine = gather_batch(losses.detach())
        kept = small_loss(everyone, rate)
        return kept[mine] * (len(losses) * world_size() / kept.sum()).to(losses.dtype)
