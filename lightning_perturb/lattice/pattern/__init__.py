"""What a perturbation of size 1 is: the direction in which an amount moves a target; a file for each target."""

from lightning_perturb.lattice.pattern.base import Pattern
from lightning_perturb.lattice.pattern.feature import Noise, Partner, Shift
from lightning_perturb.lattice.pattern.label import (
    ClassAverage,
    PartnerLabel,
    Predicted,
    Prediction,
    Redrawn,
    Uniform,
    Unlikely,
)
from lightning_perturb.lattice.pattern.logit import Covariance, LogitGradient, LogPrior, OwnLogit
from lightning_perturb.lattice.pattern.loss import Poly, Relative, Slack, log_probability

__all__ = [
    "ClassAverage",
    "Covariance",
    "LogPrior",
    "LogitGradient",
    "Noise",
    "OwnLogit",
    "Partner",
    "PartnerLabel",
    "Pattern",
    "Poly",
    "Predicted",
    "Prediction",
    "Redrawn",
    "Relative",
    "Shift",
    "Slack",
    "Uniform",
    "Unlikely",
    "log_probability",
]
