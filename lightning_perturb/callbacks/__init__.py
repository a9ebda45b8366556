"""Callbacks that record training and report on it, and the functions behind them."""

from lightning_perturb.callbacks.adversarial import AdversarialReport
from lightning_perturb.callbacks.attacked import AttackedEvaluation, RobustnessCurve
from lightning_perturb.callbacks.augmentation import AugmentationReport
from lightning_perturb.callbacks.boundary import BoundaryReport
from lightning_perturb.callbacks.dynamics import (
    area_under_margin,
    forgetting,
    memorised,
    suggested_labels,
    suspect_scores,
)
from lightning_perturb.callbacks.groups import GroupReport
from lightning_perturb.callbacks.hyperparameters import HyperparameterReport, LossReport
from lightning_perturb.callbacks.loss_variation import LossVariationReport
from lightning_perturb.callbacks.perturbation import PerturbationReport
from lightning_perturb.callbacks.recorder import Recorder
from lightning_perturb.callbacks.records import Records
from lightning_perturb.callbacks.suspects import SuspectReport

__all__ = [
    "AdversarialReport",
    "AttackedEvaluation",
    "AugmentationReport",
    "BoundaryReport",
    "GroupReport",
    "HyperparameterReport",
    "LossReport",
    "LossVariationReport",
    "PerturbationReport",
    "Recorder",
    "Records",
    "RobustnessCurve",
    "SuspectReport",
    "area_under_margin",
    "forgetting",
    "memorised",
    "suggested_labels",
    "suspect_scores",
]
