"""DMI: the determinant-based mutual information between prediction and label, after a start with cross-entropy."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.first_phase import FirstPhaseModule
from lightning_perturb.core.rates import scale_rates
from lightning_perturb.functional import dmi_loss
from lightning_perturb.functional._arguments import upcast


class DMI(FirstPhaseModule):
    """-log |det U| of the joint distribution U of label and prediction (Xu et al., 2019), DMI in [iada Table 5].

    U is the mean over the batch of all devices. Noise that depends on the class alone adds a constant to the loss. So
    does exchanging classes, which is why the network learns by cross-entropy first and goes on from there, with a fresh
    optimizer at a much smaller rate.

    Args:
        first_epochs: Epochs of cross-entropy, after those of the warm-up; None takes half of max_epochs.
        rate_factor: The learning rate of the second phase over that at the end of the first; it follows the scheduler
            from there. Published: 1e-6 after 1e-3.
        missing: What a batch gives that lacks a class, so that det U = 0: the volume of the classes ``present``, or
            nothing (``skip``, what the published code comes to).
        floor: What is added to the determinant of the batch's counts, which bounds the gradient; published 0.001.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "corpus")
    paper = "iada"

    slowed: Tensor

    def __init__(
        self,
        *args: Any,
        first_epochs: int | None = None,
        rate_factor: float = 1e-3,
        missing: Literal["present", "skip"] = "present",
        floor: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, first_epochs=first_epochs, **kwargs)
        check_positive("rate_factor", rate_factor)
        check_choice("missing", missing, ("present", "skip"))
        check_positive("floor", floor, zero=True)
        self.rate_factor = rate_factor
        self.missing = missing
        self.floor = floor
        self.add_state("slowed", torch.tensor(False))

    def start_epoch(self) -> None:
        """Where the main phase begins, forgets what the optimizer knows and lowers its rate."""
        super().start_epoch()
        if self.phase != "main" or bool(self.slowed):
            return
        self.slowed.fill_(True)
        (optimizer,) = self.trainer.optimizers
        optimizer.state.clear()
        scale_rates(optimizer, [config.scheduler for config in self.trainer.lr_scheduler_configs], self.rate_factor)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Cross-entropy in the first phase, then -log |det U|."""
        if self.phase != "main":
            return super().loss(outputs, batch)
        logits = self.perturb_logits(outputs["logits"], outputs, batch)
        (everyone, labels), _ = gather_batch(upcast(logits), batch.y)
        return dmi_loss(everyone, labels, self.missing, self.floor).to(everyone.dtype)
