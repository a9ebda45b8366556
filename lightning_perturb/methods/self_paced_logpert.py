"""Self-paced logit perturbation: MixPert's positive part with a growing threshold [tax 65]."""

import math
from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Coordinates
from lightning_perturb.methods.mixpert import MixPert


class SelfPacedLogPert(MixPert):
    """Self-paced learning by perturbation [tax 56, 65]: samples above τ lose their weight, and τ grows by epoch.

    Args:
        tau_first: τ in the first epoch. None takes 1.2 log C, a little above the loss of a guess: below it, no sample
            would train at first.
        tau_last: τ from epoch ``tau_epochs`` on, above ``tau_first``; None takes twice ``tau_first``.
        tau_epochs: Epochs over which τ grows in a straight line; None takes all epochs of the Trainer.
        eta: η; far beyond twice the largest logit norm, so that the loss of a hard sample drops to about 0.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.MixPert` but ``tau``, ``threshold``, ``share`` and
            ``eps2``.
    """

    coordinates = Coordinates.of("logit", "positive", "adversarial", "sample")

    def __init__(
        self,
        *args: Any,
        tau_first: float | None = None,
        tau_last: float | None = None,
        tau_epochs: int | None = None,
        eta: float = 1000.0,
        **kwargs: Any,
    ) -> None:
        if tau_first is not None:
            check_positive("tau_first", tau_first)
        if tau_epochs is not None:
            check_positive("tau_epochs", tau_epochs)
        super().__init__(*args, eta=eta, eps2=0.0, threshold="value", tau=tau_first or 0.0, **kwargs)
        tau_first = 1.2 * math.log(self.num_classes) if tau_first is None else tau_first
        tau_last = 2.0 * tau_first if tau_last is None else tau_last
        if tau_last <= tau_first:
            raise ValueError(f"tau_last={tau_last} must be above tau_first={tau_first}: the pace grows [tax 65].")
        self.tau_first = tau_first
        self.tau_last = tau_last
        self.tau_epochs = tau_epochs

    def _tau(self, loss: Tensor) -> Tensor:
        epochs = self.tau_epochs or self.trainer.max_epochs
        if not epochs or epochs < 0:
            raise ValueError("The Trainer has no max_epochs to stretch the pace over. Set max_epochs or tau_epochs.")
        done = min(self.current_epoch / max(epochs - 1, 1), 1.0)
        return loss.new_tensor(self.tau_first + done * (self.tau_last - self.tau_first))
