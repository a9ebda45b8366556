"""Meta-Weight-Net: the weight of a sample as a learned function of its loss; a baseline of three of the papers."""

from typing import Any

from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.functional import cross_entropy
from lightning_perturb.nets import MetaMLP


class MetaWeightNet(MetaPerturbationModule):
    """Sample weights as a function of the loss, learned on clean samples (Meta-Weight-Net).

    The mean is over the batch: weights are not normalised, as in the authors' code.

    Args:
        hidden: Width of the weighting network.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "meta", "sample")

    meta_net: MetaMLP

    def __init__(self, *args: Any, hidden: int = 100, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_meta("meta_net", MetaMLP(1, hidden))

    def weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """The weight of each sample, in (0, 1), ``[B]``; constant in the logits."""
        loss = cross_entropy(logits.detach(), batch.y)
        return self.meta_net(loss[:, None].to(self.dtype)).sigmoid()[:, 0]  # type: ignore[no-any-return]

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """w l, the loss l + (w - 1) l."""
        weights = self.weights(logits, batch)
        self.tell(batch, "hyperparameter/weight", weights)
        return weights * loss
