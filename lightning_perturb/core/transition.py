"""The base of methods that train twice: to see how labels were turned into each other, then with that corrected."""

import copy
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.first_phase import FirstPhaseModule
from lightning_perturb.core.kept_weights import KeptWeightsModule
from lightning_perturb.core.rates import options_of, put_options
from lightning_perturb.functional.cross_entropy import cross_entropy
from lightning_perturb.functional.forward_correction import forward_corrected_loss


class TransitionModule(KeptWeightsModule, FirstPhaseModule):
    """A method with the loss -log sum_k p_k T[k, y] through a transition matrix T that a first training estimates.

    In a first phase the network learns by cross-entropy; then :meth:`estimate` gives T. The second phase starts anew,
    from the weights, learning rate and schedule of the first, with the corrected loss; so max_epochs counts both
    phases, and a schedule is meant for one.

    Args:
        estimate_epochs: Epochs of the first phase; None takes half of max_epochs.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is.
    """

    first_argument = "estimate_epochs"

    transition: Tensor
    estimated: Tensor

    def __init__(self, *args: Any, estimate_epochs: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, first_epochs=estimate_epochs, **kwargs)
        self.add_state("transition", torch.eye(self.num_classes))
        self.add_state("estimated", torch.tensor(False))
        self._first_options: list[dict[str, Any]] = []
        self._first_schedule: dict[str, Any] | None = None

    def estimate(self) -> Tensor:
        """T ``[C, C]``, rows true and columns given classes, as the network shows it; the same on all ranks."""
        raise NotImplementedError(f"{type(self).__name__} must say how it estimates the transition matrix.")

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy while T is estimated, then the corrected loss."""
        if self.phase == "first":
            return cross_entropy(logits, target)
        return forward_corrected_loss(logits, target, self.transition)

    # between the phases -------------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """Keeps the first weights; estimates T and starts anew where the main phase begins."""
        super().start_epoch()
        if bool(self.estimated):
            return
        if self.current_epoch == 0:
            # after DDP has given all ranks the same
            self.keep_weights()
        if self.phase == "main":
            self.transition.copy_(self.estimate())
            self.estimated.fill_(True)
            self._start_anew()

    def _start_anew(self) -> None:
        self.restore_weights()
        (optimizer,) = self.trainer.optimizers
        optimizer.state.clear()
        put_options(optimizer, copy.deepcopy(self._first_options))
        if self._first_schedule is not None:
            (config,) = self.trainer.lr_scheduler_configs
            config.scheduler.load_state_dict(copy.deepcopy(self._first_schedule))

    def configure_optimizers(self) -> Any:
        """As in the base; remembers where rate and schedule start."""
        configured = super().configure_optimizers()
        scheduled = isinstance(configured, dict)
        optimizer = configured["optimizer"] if scheduled else configured
        self._first_options = copy.deepcopy(options_of(optimizer))
        self._first_schedule = (
            copy.deepcopy(configured["lr_scheduler"]["scheduler"].state_dict()) if scheduled else None
        )
        return configured
