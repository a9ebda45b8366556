"""Meta logit adjustment: the strength of the class prior, learned for each class."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.functional import log_prior, logit_adjustment


class MetaLogitAdjustment(MetaPerturbationModule, CountedModule):
    """Logit adjustment u_c + τ_c log π_c with a learned τ for each class [tax 39-41].

    π are the shares of the given labels in the training set; evaluation reads the plain logits. The paper does not tell
    the optimizer of τ: raise the rate of ``meta_optimizer`` where training is short.

    Args:
        tau: First value of every τ; 1 is plain logit adjustment.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "meta", "category")
    paper = "tax"

    tau: Tensor

    def __init__(self, *args: Any, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_meta("tau", torch.full((self.num_classes,), float(tau)))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + τ log π."""
        return logit_adjustment(logits, log_prior(self.class_counts), self.tau)
