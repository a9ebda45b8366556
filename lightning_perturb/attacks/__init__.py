"""Attacks on the input that a trained network is evaluated under."""

from lightning_perturb.attacks.attack import Attack, Ball
from lightning_perturb.attacks.gradient import APGD, FGSM, PGD
from lightning_perturb.attacks.right import right_under

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "Attack",
    "Ball",
    "right_under",
]
