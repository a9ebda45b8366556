"""Cells that move a target along a known pattern: the amount is known, given, or learned."""

from lightning_perturb.lattice.amount.base import AmountCell
from lightning_perturb.lattice.amount.hyperparameter import Hyperparameter
from lightning_perturb.lattice.amount.meta import Meta
from lightning_perturb.lattice.amount.prior import Prior

__all__ = [
    "AmountCell",
    "Hyperparameter",
    "Meta",
    "Prior",
]
