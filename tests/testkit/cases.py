"""Every method of the package, found and not listed, with further options for those whose options change the path."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_perturb.methods  # noqa: F401 - its classes are what is found
from lightning_perturb import adjusters
from lightning_perturb import lattice as cells
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.nets import Adjuster


class Teacher(nn.Module):
    """A fixed network of anything: each class is scored by a wave of the input's mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pitch", torch.arange(1.0, 11.0))

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        x = next(iter((*args, *kwargs.values())))
        return torch.sin(x.float().flatten(1).mean(1, keepdim=True) * 40 * self.pitch).to(self.pitch.dtype)


def adjuster_file(robust_loss: str = "gce") -> str:
    """A snapshot of an adjuster that has learned nothing yet."""
    path = Path(tempfile.gettempdir()) / f"lightning_perturb_test_{os.getpid()}" / f"{robust_loss}.pt"
    if not path.is_file():
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            adjusters.write(adjusters.take(Adjuster(robust_loss), 1, 1), path)
        atexit.register(path.unlink)
    return str(path)


def falling(optimizer: torch.optim.Optimizer) -> Any:
    """A schedule of a second stage, whose first is another."""
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)


#: what a method cannot train without, or is plain cross-entropy
NEEDED: dict[str, dict[str, Any]] = {
    "BalancedKnowledgeDistillation": {"teacher": Teacher()},
    "KnowledgeDistillation": {"teacher": Teacher()},
    "TransferredRobustLoss": {"adjuster": adjuster_file()},
    "Perturb": {"perturbations": [cells.Adversarial("logit", "category", "mixed")]},
    "MetaPerturb": {"perturbations": [cells.Meta("loss", "sample", "positive")]},
}

# a method that is not named here is tested with its defaults
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "ActivePassiveLoss": {"focal": {"active": "nfl", "passive": "mae", "alpha": 2.0}},
    "D2L": {"early": {"init_epochs": 0, "window": 1, "neighbours": 3, "batches": 2, "drawn_size": 12}},
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
    "ReWeighting": {"deferred": {"from_epoch": 1}},
    "ReSampling": {"deferred": {"from_epoch": 1}},
    "ClassBalancedFineTuning": {
        "sampling": {"from_epoch": 1},
        "classifier": {"from_epoch": 1, "tuned": "classifier", "balance": "weights"},
    },
    "ClassifierRetraining": {"second": {"from_epoch": 1, "second_scheduler": falling}},
    "LearnableWeightScaling": {"second": {"from_epoch": 1}},
    "ClassBalancedFocal": {"softmax": {"form": "softmax", "beta": 0.9}},
    "LDAM": {"plain": {"cosine": False, "margin": 2.0}},
    "LDAMDRW": {"reweighted": {"from_epoch": 1, "scale": 10.0}},
    "ArcFace": {"lengths": {"scale": 0.0, "margin": 0.2}},
    "ConfidencePenalty": {"hinge": {"tau": 2.25, "beta": 1.0}},
    "GroupDRO": {"adjusted": {"step_size": 0.1, "adjustment": 2.0}},
    "IRM": {"unbiased": {"unbiased": True, "weight": 0.3}},
    "VREx": {"group": {"environments": "group", "anneal_steps": 0, "weight": 0.1}},
    "LISA": {"features": {"mix_at": "features", "weights": "batch", "alpha": 0.3}},
    "PolyLoss": {"three": {"epsilons": (-0.5, 0.3, 1.0)}},
    "Mixup": {"sample": {"weights": "sample", "alpha": 0.3}},
    "MetaMixUp": {"batch": {"weights": "batch", "policy_lr": 3.0}},
    "LPL": {
        "frequency": {"split": "frequency", "head": 0.4},
        "epoch": {"q_stat": "epoch", "absent": "zero", "bound_norm": "side_max", "rounding": "round", "eps": 0.0},
        "ema": {"split": "frequency", "bound_stat": "confidence", "q_stat": "ema", "delta_eps": 2.0},
        "through": {"detach": False, "freeze_split": False, "grad_norm": "column", "eps": 1.0, "alpha": 0.2},
    },
    "DeconfoundTDE": {"given": {"alpha": 0.5, "heads": 1}},
    "MetaClassWeight": {"moved": {"conditional_lr": 0.05, "meta_every": 2}},
    "RISDA": {"fresh": {"transfer": "fresh", "covariance": "diagonal", "warmup_epochs": 1}},
    "LogitAdjustedLPL": {"frequency": {"split": "frequency"}},
    "Perturb": {
        "universal": {
            "perturbations": [
                cells.Adversarial("feature", "corpus"),
                cells.Adversarial("feature", "category", norm="l2", eps=0.2, steps=2),
                cells.Regularization("feature", "category", "negative", lam=5.0, steps=2),
            ]
        },
        "targets": {
            "perturbations": [
                cells.Adversarial("feature", "sample", steps=2, eps=0.03, split=cells.HardestSamples(0.3)),
                cells.Prior("feature", "sample", "positive"),
                cells.Regularization("logit", "category", "mixed", lam=3.0),
                cells.Regularization("label", "sample", "negative", lam=20.0),
                cells.Adversarial("loss", "sample", eps=0.2),
            ]
        },
        "prior": {
            "perturbations": [
                cells.Prior("feature", "sample", "mixed", strength=0.5, pattern=cells.Partner()),
                cells.Prior("logit", "corpus", "mixed", strength=0.5),
                cells.Prior("logit", "category", "mixed", strength=0.3, split=cells.FrequentClasses(0.4)),
                cells.Prior("label", "category", "mixed", strength=0.2, pattern=cells.ClassAverage()),
            ]
        },
        "numbers": {
            "perturbations": [
                cells.Hyperparameter("feature", "corpus", value=0.05),
                cells.Hyperparameter("label", "sample", "mixed", value=0.2),
                cells.Hyperparameter("loss", "category", "mixed", value=[0.1 * c for c in range(10)]),
                cells.Regularization("loss", "corpus", lam=0.8),
            ]
        },
    },
    "MetaPerturb": {
        "input": {
            "perturbations": [
                cells.Meta("feature", "category", "negative", start=0.05),
                cells.Meta("feature", "sample", "mixed", bound=0.5, pattern=cells.Partner()),
                cells.Meta("logit", "category", "mixed", start=0.5, pattern=cells.LogPrior()),
                cells.Meta("label", "corpus", "mixed", start=0.1),
            ]
        },
    },
    "MbLS": {"tight": {"margin": 3.0, "reduction": "sum"}},
    "MultiLabelFocal": {"detection": {"positive_weight": 0.25, "gamma": 1.5, "focal_scale": 4.0}},
    "MultiLabelLPL": {"pgd": {"solver": "pgd", "eps": 0.1, "delta_eps": 0.0, "steps": 3}},
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
