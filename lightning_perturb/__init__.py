"""A PyTorch Lightning module zoo for learning under bad data by perturbation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_perturb.core import (
        Batch,
        Coordinates,
        MetaPerturbationModule,
        MultiLabelModule,
        Needs,
        PerturbationModule,
        load,
    )

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Coordinates",
    "MetaPerturbationModule",
    "MultiLabelModule",
    "Needs",
    "PerturbationModule",
    "load",
]


def __getattr__(name: str) -> Any:
    # on demand: `functional` and `bilevel` serve projects that have no use for Lightning, which takes seconds to import
    if name in __all__:
        from lightning_perturb import core

        return getattr(core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
