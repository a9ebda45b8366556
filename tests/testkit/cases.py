"""Every method of the package, found and not listed, with further options for those whose options change the path."""

from __future__ import annotations

from typing import Any

import pytest

import lightning_perturb.methods  # noqa: F401 - its classes are what is found
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import subclasses

# a method that is not named here is tested with its defaults
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "LogPert": {
        "alternating": {"update": "alternating"},
        "prox": {
            "update": "alternating",
            "l1_solver": "prox",
            "inner_steps": 2,
            "l1_reduction": "batch_sum",
            "lam": 0.01,
        },
        "joint": {"update": "joint", "lam": 0.05},
    },
    "MixPert": {
        "value": {"threshold": "value", "tau": 2.2},
        "quantile": {"threshold": "epoch_quantile", "share": 0.3},
        "attack": {"eps2": 8 / 255, "steps": 2, "share": 0.3},
        "per_sample": {
            "eps2": 8 / 255,
            "steps": 2,
            "share": 0.3,
            "bounds": "per_sample",
            "clean_weight": 0.4,
            "rank_mode": "train",
            "threshold": "epoch_quantile",
        },
    },
    "OnlineLabelSmoothing": {"one": {"confidence": "one", "first_epoch": "zeros"}},
    "MixBootstrapping": {"detached": {"detach_target": True, "beta": 0.7}},
    "MbLS": {"tight": {"margin": 3.0, "reduction": "sum"}},
}


def methods() -> list[type[PerturbationModule]]:
    """Every concrete method that the package ships."""
    found = [cls for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")]
    return sorted(found, key=lambda cls: cls.__name__)


def method_params() -> list[Any]:
    """Every method with its defaults, for parametrize."""
    return [pytest.param(cls, id=cls.__name__) for cls in methods()]


def case_params() -> list[Any]:
    """Every method with its defaults and its variants: (class, options), for parametrize."""
    cases = []
    for cls in methods():
        cases.append(pytest.param(cls, {}, id=cls.__name__))
        for name, options in VARIANTS.get(cls.__name__, {}).items():
            cases.append(pytest.param(cls, options, id=f"{cls.__name__}-{name}"))
    return cases
