"""Co-teaching and JoCoR: two networks that train on the samples of small loss."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_range
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.small_loss import SmallLossModule
from lightning_perturb.functional import symmetric_divergence


class CoTeaching(SmallLossModule):
    """Co-teaching (Han et al., 2018): each network trains on the samples that have a small loss for the other.

    Args:
        **kwargs: ``forget_rate``, ``gradual_epochs`` and ``exponent`` of
            :class:`~lightning_perturb.core.small_loss.SmallLossModule`, ``second`` and ``evaluate`` of
            :class:`~lightning_perturb.core.two_networks.TwoNetworkModule`, and arguments of
            :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "sample")
    paper = "iada"

    def joint_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mean of each network's losses over the samples that the other chose, added."""
        first, second = self.both_losses(outputs, batch)
        chosen, lent = self.weights(second), self.weights(first)
        self.tell(batch, "hyperparameter/kept", (chosen > 0).to(first.dtype))
        self.tell(batch, "sample_loss", chosen * first)
        return (chosen * first).mean() + (lent * second).mean()


class JoCoR(SmallLossModule):
    """Joint training with co-regularisation (Wei et al., 2020): two networks that are to agree.

    A sample's loss is (1 - co_weight) of both networks' cross-entropy and co_weight of the divergence of their
    predictions, in both directions; both train on the samples where that is small.

    Args:
        co_weight: Weight of the agreement, in [0, 1]; published 0.9 for CIFAR-10 and 0.85 for CIFAR-100.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.CoTeaching`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "hyperparameter", "sample")
    paper = "iada"

    def __init__(self, *args: Any, co_weight: float = 0.9, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("co_weight", co_weight, 0.0, 1.0)
        self.co_weight = co_weight

    def joint_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mean of the joint losses over the samples where they are small."""
        first, second = self.both_losses(outputs, batch)
        apart = symmetric_divergence(outputs["logits"], outputs["peer_logits"])
        joint = (1 - self.co_weight) * (first + second) + self.co_weight * apart
        kept = self.weights(joint)
        self.tell(batch, "hyperparameter/kept", (kept > 0).to(joint.dtype))
        # one network's half
        self.tell(batch, "sample_loss", kept * joint / 2)
        return (kept * joint).mean()
