"""Directions in the logits."""

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_used
from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.functional import (
    ClassCovariance,
    class_covariance_update,
    isda_perturbation,
    log_prior,
    logit_gradient,
    one_hot,
)
from lightning_perturb.lattice.pattern.base import Pattern
from lightning_perturb.lattice.site import Site
from lightning_perturb.nets.features import find_classifier


class OwnLogit(Pattern):
    """The logit of the given class, e_y: the margin of LDAM and ArcFace with its sign turned."""

    target = "logit"
    lowers = True
    signed = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """e_y."""
        y = site.batch.y
        return one_hot(y, value.shape[1], value.dtype) if y.ndim == 1 else y.to(value.dtype)


class LogitGradient(Pattern):
    """The way down the loss, e_y - p [tax 59], a constant in the logits."""

    target = "logit"
    lowers = True
    signed = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """e_y - p."""
        return -logit_gradient(value.detach(), site.batch.y)


class LogPrior(Pattern):
    """The logarithm of the class shares, log π [tax 12, 39]. Amounts of categories multiply the classes' entries."""

    target = "logit"
    signed = True
    by_class = True
    needs_counts = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """log π for every sample."""
        return log_prior(site.module.class_counts.double()).to(value.dtype).expand_as(value)


class Covariance(Pattern):
    """What infinitely many copies of a feature add, drawn with the covariance Σ_y of its class, as ISDA [tax 33-35].

    Its unit is half of (w_j - w_y)ᵀ Σ_y (w_j - w_y), with gradients through the classifier's weight alone. A batch
    enters the statistics before its loss.

    Args:
        ramp: Let amounts grow with the share of the epochs that are done, from 0, as published.
        epochs: Epochs that the ramp is stretched over; None takes the Trainer's.
        diagonal: Keep variances alone; for many classes.
    """

    target = "logit"
    lowers = False
    reads_features = True

    def __init__(self, ramp: bool = True, epochs: int | None = None, diagonal: bool = False) -> None:
        if epochs is not None:
            check_positive("epochs", epochs)
        check_used("epochs", epochs, None, "ramp", ramp, (True,))
        self.ramp = ramp
        self.epochs = epochs
        self.diagonal = diagonal

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Counts, means and covariances of the classes."""
        classes, width = (
            module.num_classes,
            find_classifier(module.net, getattr(module, "classifier", None))[1].in_features,
        )
        module.add_state(f"{slot}_count", torch.zeros(classes, dtype=torch.int64))
        module.add_state(f"{slot}_mean", torch.zeros(classes, width))
        shape = (classes, width) if self.diagonal else (classes, width, width)
        # expanded: the first value of a large state takes no memory
        module.add_state(f"{slot}_covariance", torch.zeros(()).expand(shape))

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """R[y] of [lpl 7], times the ramp."""
        features, weight = site.outputs["features"], site.outputs["weight"]
        names = [f"{site.slot}_{name}" for name in ("count", "mean", "covariance")]
        known = ClassCovariance(*(getattr(site.module, name) for name in names))
        y = site.ids(self)
        found = class_covariance_update(*known, *gather_rows(features.detach().to(known.mean.dtype), y))
        site.batch.extra.update(zip(names, found, strict=True))
        return (isda_perturbation(weight, found.covariance, y) * self._share(site.module)).to(value.dtype)

    def _share(self, module: PerturbationModule) -> float:
        if not self.ramp:
            return 1.0
        epochs = self.epochs or module.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ValueError(
                "ramp=True grows until the last epoch, but the Trainer names none. Set max_epochs or epochs, or take "
                "ramp=False."
            )
        return min(module.current_epoch / epochs, 1.0)

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Takes the batch into the statistics."""
        for name in ("count", "mean", "covariance"):
            if (found := batch.extra.get(f"{slot}_{name}")) is not None:
                getattr(module, f"{slot}_{name}").copy_(found)
