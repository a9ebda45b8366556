"""Forward correction: two trainings, the first of which shows how labels were turned into each other."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_range
from lightning_perturb.core import Coordinates, Needs
from lightning_perturb.core.scores import training_predictions
from lightning_perturb.core.transition import TransitionModule
from lightning_perturb.functional import estimate_transition


class ForwardCorrection(TransitionModule):
    """The loss -log sum_k p_k T[k, y] through the noise's transition matrix T; Forward in the tables of [narl].

    In a first phase the network learns by cross-entropy. Its predictions for the training set then give the estimate
    of T: row c is the prediction for the sample that is surest of class c. The second phase starts anew, from the
    weights, learning rate and schedule of the first, with the corrected loss; so max_epochs counts both phases, and a
    schedule is meant for one.

    Args:
        filter_top: Share of the samples with the largest p_c that is passed over as outliers before the anchor of c is
            taken; its authors take 0.03 for CIFAR-10 and 0 otherwise.
        transition: T, where it is known: rows are true, columns given classes. There is no first phase then.
        **kwargs: ``estimate_epochs`` of :class:`~lightning_perturb.core.transition.TransitionModule`, and arguments of
            :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is.
    """

    coordinates = Coordinates.of("logit", "positive", "prior", "category")
    needs = Needs(scores=True)
    paper = "narl"

    def __init__(
        self, *args: Any, filter_top: float = 0.0, transition: list[list[float]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_range("filter_top", filter_top, 0.0, 1.0, open_high=True)
        self.filter_top = filter_top
        self._known = transition is not None
        if transition is not None:
            self.add_state("transition", self._matrix(transition))
            self.add_state("estimated", torch.tensor(True))

    @property
    def has_first_phase(self) -> bool:
        """Unless ``transition`` was given."""
        return not self._known

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

    def estimate(self) -> Tensor:
        """T from the anchors among the training samples."""
        return estimate_transition(training_predictions(self), self.filter_top)
