"""A PyTorch Lightning module zoo for learning under bad data by perturbation."""

from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule, load

__version__ = "0.1.0"

__all__ = ["Batch", "Coordinates", "Needs", "PerturbationModule", "load"]
