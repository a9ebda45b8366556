"""Meta logit adjustment: the strength of the class prior, learned for each class."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.functional import log_prior, logit_adjustment


class MetaLogitAdjustment(MetaPerturbationModule):
    """Logit adjustment u_c + τ_c log π_c with a learned τ for each class [tax 39-41].

    π are the shares of the given labels in the training set; evaluation reads the plain logits. The paper does not tell
    the optimizer of τ: raise the rate of ``meta_optimizer`` where training is short.

    Args:
        tau: First value of every τ; 1 is plain logit adjustment.
        class_counts: Given labels by class in the training set, for data modules that do not tell.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "meta", "category")
    paper = "tax"

    tau: Tensor

    def __init__(self, *args: Any, tau: float = 1.0, class_counts: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if class_counts is not None and (len(class_counts) != self.num_classes or min(class_counts) < 1):
            raise ValueError(
                f"class_counts={class_counts} must be {self.num_classes} numbers of samples above 0, one a class."
            )
        self._given_counts = class_counts
        self.add_meta("tau", torch.full((self.num_classes,), float(tau)))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + τ log π."""
        return logit_adjustment(logits, log_prior(self.class_counts), self.tau)

    def setup(self, stage: str) -> None:
        """As in the base; checks that the class prior is known."""
        super().setup(stage)
        if self._given_counts is not None:
            self.class_counts.copy_(torch.tensor(self._given_counts))
        if stage == "fit" and not self.class_counts.any():
            raise ValueError(
                f"{type(self).__name__} needs the number of training samples of each class. Use a lightning_perturb "
                "data module, put Wrap(datamodule=...) around yours, or give class_counts=[...]."
            )
