"""MultiLabelLPL: learned class-level perturbation of logits for several labels at once, by itself and over R-BCE."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, CountedModule, MultiLabelModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.functional import frequency_bounds, frequency_split, multi_label_lpl
from lightning_perturb.methods.distribution_balanced import RBCE, RBCEFocal
from lightning_perturb.methods.lpl import count_head


class MultiLabelLPL(CountedModule, MultiLabelModule):
    """LPL for several labels: logits of head classes are raised, of tail classes lowered, within bounds [lpl 34-38].

    For the tail, the losses of positives rise and those of negatives fall; for the head it is the other way round. Both
    are monotone in the shift, so that the bound is attained: in closed form without any step. Classes are ranked by
    their number of positive samples. Evaluation reads the plain logits.

    Args:
        head: How many of the most frequent classes are the head, tau: a share (below 1) or a count; the paper searches
            {0.4, 0.5, 0.6}. 0 makes all classes tail [lpl 35], their number all head [lpl 36].
        eps: The smallest bound; for a fixed bound (delta_eps 0) searched in 0.05, 0.1 (the third value is misprinted).
        delta_eps: How far bounds vary [lpl 33]: eps + delta_eps n_c / n_1 for the head and eps + delta_eps n_C / n_c
            for the tail; searched in 0.1, 0.2, 0.3 with eps 0.
        solver: ``closed_form``, or ``pgd``: steps along the mean derivative, stopped at the bound [lpl 39-41, with the
            signs corrected].
        alpha: The size of a step of ``pgd``.
        steps: The number of steps of ``pgd``.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "adversarial", "category")
    paper = "lpl"

    sign: Tensor
    bounds: Tensor

    def __init__(
        self,
        *args: Any,
        head: float = 0.5,
        eps: float = 0.0,
        delta_eps: float = 0.2,
        solver: Literal["closed_form", "pgd"] = "closed_form",
        alpha: float = 0.1,
        steps: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("eps", eps, zero=True)
        check_positive("delta_eps", delta_eps, zero=True)
        check_choice("solver", solver, ("closed_form", "pgd"))
        check_positive("alpha", alpha)
        check_positive("steps", steps, zero=True)
        self.head_classes = count_head(head, self.num_classes)
        self.eps = eps
        self.delta_eps = delta_eps
        self.solver = solver
        self.alpha = alpha
        self.steps = steps
        self.add_state("sign", torch.zeros(self.num_classes), persistent=False)
        self.add_state("bounds", torch.zeros(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """Which classes are head and tail, and how far each may be moved."""
        super().use_counts(counts)
        self.sign.copy_(frequency_split(counts, self.head_classes))
        self.bounds.copy_(frequency_bounds(counts, self.head_classes, self.eps, self.delta_eps))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u - S(c - tau) epsilon_c."""
        u = super().perturb_logits(logits, outputs, batch)
        # the closed form reads neither; steps are along the mean over the samples of all ranks
        seen, labels = gather_rows(u, batch.y) if self.solver == "pgd" else (u, batch.y)
        return u + multi_label_lpl(seen, labels, self.sign, self.bounds, self.solver, self.alpha, self.steps)


class RBCELPL(MultiLabelLPL, RBCE):
    """R-BCE+LPL: R-BCE over perturbed logits [lpl Table V].

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.MultiLabelLPL` and
            :class:`~lightning_perturb.methods.RBCE`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), ("prior", "adversarial"), "category")


class RBCEFocalLPL(MultiLabelLPL, RBCEFocal):
    """R-BCE-Focal+LPL: R-BCE-Focal over perturbed logits [lpl Table V].

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.MultiLabelLPL` and
            :class:`~lightning_perturb.methods.RBCEFocal`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), ("prior", "adversarial"), "category")
