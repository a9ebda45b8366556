"""The lattice of the taxonomy: perturbations by target, granularity, inference and direction, to be listed.

A cell's class is its inference, its arguments are the rest; :class:`~lightning_perturb.methods.Perturb` trains with any
list of them. Granularity says who shares the perturbation's variable: an amount (one label-smoothing strength for the
corpus), a goal (one class that the labels of a category move to) or a vector (one logit shift for a category).

Cells without a meaning are refused with the reason; :func:`no_meaning` is the list: the label of the corpus at a price
[tax 7]; the loss of the corpus under an adversary, or raised at a price; one perturbation for the corpus that is found
by search and goes both ways, or one number for its loss that does; the adversary's weights of losses going both ways.
"""

from lightning_perturb.lattice.adversarial import Adversarial
from lightning_perturb.lattice.amount import AmountCell, Hyperparameter, Meta, Prior
from lightning_perturb.lattice.bounds import Bounds, ConfidenceBounds, FrequencyBounds
from lightning_perturb.lattice.cell import Cell, SplitCell
from lightning_perturb.lattice.loss_pattern import ClassWeight, Learnt, LowEntropy, Taught
from lightning_perturb.lattice.meaning import CELL_DIRECTIONS, cells, no_meaning
from lightning_perturb.lattice.pattern import (
    ClassAverage,
    Covariance,
    LogitGradient,
    LogPrior,
    Noise,
    OwnLogit,
    Partner,
    PartnerLabel,
    Pattern,
    Poly,
    Predicted,
    Prediction,
    Redrawn,
    Relative,
    Shift,
    Slack,
    Uniform,
    Unlikely,
)
from lightning_perturb.lattice.regularization import Regularization
from lightning_perturb.lattice.site import Site
from lightning_perturb.lattice.split import (
    ConfidentClasses,
    FrequentClasses,
    HardestSamples,
    LargeLosses,
    PacedLosses,
    Split,
)

__all__ = [
    "CELL_DIRECTIONS",
    "Adversarial",
    "AmountCell",
    "Bounds",
    "Cell",
    "ClassAverage",
    "ClassWeight",
    "ConfidenceBounds",
    "ConfidentClasses",
    "Covariance",
    "FrequencyBounds",
    "FrequentClasses",
    "HardestSamples",
    "Hyperparameter",
    "LargeLosses",
    "Learnt",
    "LogPrior",
    "LogitGradient",
    "LowEntropy",
    "Meta",
    "Noise",
    "OwnLogit",
    "PacedLosses",
    "Partner",
    "PartnerLabel",
    "Pattern",
    "Poly",
    "Predicted",
    "Prediction",
    "Prior",
    "Redrawn",
    "Regularization",
    "Relative",
    "Shift",
    "Site",
    "Slack",
    "Split",
    "SplitCell",
    "Taught",
    "Uniform",
    "Unlikely",
    "cells",
    "no_meaning",
]
