"""The common core: batches, needs, coordinates, the base module, state, randomness and resume."""

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.load import load
from lightning_perturb.core.meta import MetaPerturbationModule
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.core.multi_label import MultiLabelModule
from lightning_perturb.core.needs import DataFacts, Needs
from lightning_perturb.core.taxonomy import Coordinates

__all__ = [
    "Batch",
    "Coordinates",
    "CountedModule",
    "DataFacts",
    "MetaPerturbationModule",
    "MultiLabelModule",
    "Needs",
    "PerturbationModule",
    "load",
]
