"""Figures of the papers from arrays; each function returns a matplotlib Figure, :func:`save` writes it."""

from lightning_perturb.figures.adversarial import adversarial_by_class, adversarial_over_epochs
from lightning_perturb.figures.augmentation import Augmented, augmented_samples
from lightning_perturb.figures.boundary import Classifier, decision_boundaries
from lightning_perturb.figures.contact_sheet import contact_sheet
from lightning_perturb.figures.curves import accuracy_curves
from lightning_perturb.figures.hyperparameters import (
    hyperparameter_distributions,
    hyperparameters_by_margin,
    loss_over_epochs,
    values_over_epochs,
)
from lightning_perturb.figures.loss_variation import (
    ClassVariation,
    loss_variation_by_class,
    loss_variation_over_epochs,
)
from lightning_perturb.figures.perturbation import perturbation_distribution
from lightning_perturb.figures.read import read_metric
from lightning_perturb.figures.robustness import robustness_curve
from lightning_perturb.figures.save import save
from lightning_perturb.figures.self_paced import loss_ratio_curve, spl_weight_curves
from lightning_perturb.figures.sensitivity import accuracy_by_value

__all__ = [
    "Augmented",
    "ClassVariation",
    "Classifier",
    "accuracy_by_value",
    "accuracy_curves",
    "adversarial_by_class",
    "adversarial_over_epochs",
    "augmented_samples",
    "contact_sheet",
    "decision_boundaries",
    "hyperparameter_distributions",
    "hyperparameters_by_margin",
    "loss_over_epochs",
    "loss_ratio_curve",
    "loss_variation_by_class",
    "loss_variation_over_epochs",
    "perturbation_distribution",
    "read_metric",
    "robustness_curve",
    "save",
    "spl_weight_curves",
    "values_over_epochs",
]
