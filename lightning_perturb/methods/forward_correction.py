"""Forward correction: two trainings, the first of which shows how labels were turned into each other."""

import copy
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule
from lightning_perturb.core.module import CHECKPOINT_KEY
from lightning_perturb.core.scores import training_predictions
from lightning_perturb.functional import cross_entropy, estimate_transition, forward_corrected_loss


class ForwardCorrection(PerturbationModule):
    """The loss -log sum_k p_k T[k, y] through the noise's transition matrix T; Forward in the tables of [narl].

    In a first phase the network learns by cross-entropy. Its predictions for the training set then give the estimate
    of T: row c is the prediction for the sample that is surest of class c. The second phase starts anew, from the
    weights, learning rate and schedule of the first, with the corrected loss; so max_epochs counts both phases, and a
    schedule is meant for one.

    Args:
        estimate_epochs: Epochs of the first phase; None takes half of max_epochs.
        filter_top: Share of the samples with the largest p_c that is passed over as outliers before the anchor of c is
            taken; its authors take 0.03 for CIFAR-10 and 0 otherwise.
        transition: T, where it is known: rows are true, columns given classes. There is no first phase then.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is.
    """

    coordinates = Coordinates.of("logit", "positive", "prior", "category")
    needs = Needs(scores=True)
    paper = "narl"

    transition: Tensor
    estimated: Tensor

    def __init__(
        self,
        *args: Any,
        estimate_epochs: int | None = None,
        filter_top: float = 0.0,
        transition: list[list[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if estimate_epochs is not None:
            check_positive("estimate_epochs", estimate_epochs)
        check_range("filter_top", filter_top, 0.0, 1.0, open_high=True)
        self.estimate_epochs = estimate_epochs
        self.filter_top = filter_top
        known = torch.eye(self.num_classes) if transition is None else self._matrix(transition)
        self.add_state("transition", known)
        self.add_state("estimated", torch.tensor(transition is not None))
        self._known = transition is not None
        self._first_weights: dict[str, Tensor] = {}
        self._first_groups: list[dict[str, Any]] = []
        self._first_schedule: dict[str, Any] | None = None

    def _matrix(self, rows: list[list[float]]) -> Tensor:
        classes = self.num_classes
        if len(rows) != classes or any(len(row) != classes for row in rows):
            raise ValueError(f"transition must have {classes} rows of {classes} numbers, one for each class.")
        matrix = torch.tensor(rows, dtype=torch.float32)
        if bool((matrix < 0).any()) or not torch.allclose(matrix.sum(1), torch.ones(classes), atol=1e-4):
            raise ValueError(
                f"transition has the row sums {[round(x, 4) for x in matrix.sum(1).tolist()]} or negative numbers. "
                "Each row is the distribution of the given label of one true class."
            )
        return matrix

    def phases(self) -> list[tuple[int, str]]:
        """Warm-up, estimation and the corrected main phase."""
        first = self.warmup_epochs
        return [(0, "warmup"), (first, "estimate"), (first + self._estimating(), "main")]

    def _estimating(self) -> int:
        if self._known:
            return 0
        if self.estimate_epochs is not None:
            return self.estimate_epochs
        return max(((self.trainer.max_epochs or 0) - self.warmup_epochs) // 2, 1)

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy while T is estimated, then the corrected loss."""
        if self.phase == "estimate":
            return cross_entropy(logits, target)
        return forward_corrected_loss(logits, target, self.transition)

    # between the phases -------------------------------------------------------------------------------------------

    def start_epoch(self) -> None:
        """Keeps the first weights; estimates T and starts anew where the main phase begins."""
        if bool(self.estimated):
            return
        if self.current_epoch == 0:
            # after DDP has given all ranks the same
            self._first_weights = {name: value.cpu().clone() for name, value in self.net.state_dict().items()}
        if self.phase == "main":
            self.transition.copy_(estimate_transition(training_predictions(self), self.filter_top))
            self.estimated.fill_(True)
            self._start_anew()

    def _start_anew(self) -> None:
        self.net.load_state_dict(self._first_weights)
        self._first_weights = {}
        # autocast keeps the half-precision copies of the old weights
        torch.clear_autocast_cache()
        (optimizer,) = self.trainer.optimizers
        optimizer.state.clear()
        for group, first in zip(optimizer.param_groups, self._first_groups, strict=True):
            group.update(copy.deepcopy(first))
        if self._first_schedule is not None:
            (config,) = self.trainer.lr_scheduler_configs
            config.scheduler.load_state_dict(copy.deepcopy(self._first_schedule))

    def configure_optimizers(self) -> Any:
        """As in the base; remembers where rate and schedule start."""
        configured = super().configure_optimizers()
        scheduled = isinstance(configured, dict)
        optimizer = configured["optimizer"] if scheduled else configured
        groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self._first_groups = copy.deepcopy(groups)
        self._first_schedule = (
            copy.deepcopy(configured["lr_scheduler"]["scheduler"].state_dict()) if scheduled else None
        )
        return configured

    def on_fit_start(self) -> None:
        """As in the base; checks that the first phase has a length."""
        super().on_fit_start()
        if not self._known and self.estimate_epochs is None and (self.trainer.max_epochs or -1) < 1:
            raise ValueError(
                "estimate_epochs=None takes half of max_epochs, which the Trainer does not have. Set estimate_epochs."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the first weights as long as they are needed."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["first_weights"] = dict(self._first_weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the first weights."""
        super().on_load_checkpoint(checkpoint)
        self._first_weights = dict(checkpoint.get(CHECKPOINT_KEY, {}).get("first_weights", {}))
