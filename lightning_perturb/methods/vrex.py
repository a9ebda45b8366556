"""V-REx: risks that are alike in all domains."""

from typing import Any

from torch import Tensor

from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.domains import DomainPenaltyModule
from lightning_perturb.functional import vrex_penalty


class VREx(DomainPenaltyModule):
    """The mean of the domains' risks and β times their variance (Krueger et al., 2021).

    The paper adds the risks up instead; its β is D times this one.

    Args:
        weight: β. 10 as in DomainBed, which searches 0.1 to 1e5; the authors' code for coloured MNIST rescales.
        anneal_steps: Steps of the optimizer with a weight of 1 (at most), DomainBed's 500. (It also starts its Adam
            anew there.)
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainPenaltyModule`.
    """

    coordinates = Coordinates.of("loss", "negative", "regularization", "corpus")

    def __init__(self, *args: Any, weight: float = 10.0, anneal_steps: int = 500, **kwargs: Any) -> None:
        super().__init__(*args, weight=weight, anneal_steps=anneal_steps, **kwargs)

    def penalty(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """Var_d R_d."""
        (losses, domain), _ = gather_batch(loss, self.environment(batch))
        return vrex_penalty(losses, domain)
