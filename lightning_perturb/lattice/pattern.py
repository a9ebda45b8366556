"""What a perturbation of size 1 is: the direction in which an amount moves a target."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate, check_used
from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.distributed import gather_batch, gather_rows
from lightning_perturb.core.partners import mixing_weights, partners
from lightning_perturb.core.plain import Plain
from lightning_perturb.functional import (
    ClassCovariance,
    accumulate,
    class_average,
    class_covariance_update,
    disturb_label,
    isda_perturbation,
    log_prior,
    logit_gradient,
    one_hot,
)
from lightning_perturb.lattice.site import Site
from lightning_perturb.nets.features import find_classifier


class Pattern(Plain):
    """A direction in one target.

    Attributes:
        target: The target.
        lowers: What an amount above 0 does to every loss: True lowers it, False raises it, None depends on the sample.
        signed: Whether an amount below 0 is the opposite; otherwise it has no meaning.
        by_class: Whether amounts of categories belong to the classes of the logits, not to the sample's own class.
        largest: The largest amount that has a meaning.
        reads_features: Whether it reads the deep features and the classifier.
        needs_counts: Whether it reads the class frequencies.
    """

    target: ClassVar[str]
    lowers: ClassVar[bool | None] = None
    signed: ClassVar[bool] = False
    by_class: ClassVar[bool] = False
    largest: ClassVar[float] = float("inf")
    needs_counts: ClassVar[bool] = False
    reads_features: ClassVar[bool] = False

    def limit(self, direction: str) -> float:
        """The largest amount that has a meaning in a direction."""
        return self.largest

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """The perturbation of amount 1, in the shape of the value.

        Args:
            value: The target's value as the cell finds it.
            site: Where the cell acts.
        """
        raise NotImplementedError(f"{type(self).__name__} must say its unit.")

    def apply(self, value: Tensor, amount: Tensor, unit: Tensor) -> Tensor:
        """The value moved by an amount that broadcasts to it."""
        return value + amount * unit

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Declares state, as :meth:`Cell.declare`."""

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Writes state, as :meth:`Cell.update`."""

    def start_epoch(self, module: PerturbationModule, slot: str) -> None:
        """Runs at the start of an epoch, as :meth:`Cell.start_epoch`."""


# of the input -----------------------------------------------------------------------------------------------------


class Noise(Pattern):
    """Standard normal noise, drawn for each sample and epoch; an amount is its standard deviation in the input."""

    target = "feature"
    signed = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """n."""
        return site.module.normal(f"{site.slot} noise", site.batch, *value.shape[1:]).to(value.dtype)


class Partner(Pattern):
    """The way to another sample of the batch, (1 - w)(x_j - x) with w from Beta(α, α) [Mixup]; amount 1 goes it all.

    Args:
        alpha: α.
    """

    target = "feature"
    largest = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        check_positive("alpha", alpha)
        self.alpha = alpha

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """(1 - w)(x_j - x)."""
        return _to_partner(value, site, self.alpha)


class Shift(Pattern):
    """A given shift of some samples, the same ones in every epoch.

    Args:
        by: The shift at amount 1: a number, or one for each channel (feature).
        share: Share of the samples that are shifted; below 1, each sample's index must be known.
    """

    target = "feature"
    signed = True

    def __init__(self, by: float | list[float] = 1.0, share: float = 1.0) -> None:
        check_rate("share", share)
        self.by = by
        self.share = share

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """The shift of samples that are chosen, 0 of others."""
        module = site.module
        by = value.new_tensor(self.by)
        if by.ndim and len(by) != value.shape[1]:
            raise ValueError(
                f"by={self.by} has {len(by)} numbers for inputs with {value.shape[1]} channels. Give one each."
            )
        rows = value.new_ones(len(value), *[1] * (value.ndim - 1))
        if self.share < 1:
            drawn = keyed_random.uniform(module._draw_seed, f"{site.slot} shift", 0, module.indices(site.batch))
            rows = (drawn < self.share).to(value.dtype).view_as(rows)
        return (rows * by.reshape(1, -1, *[1] * (value.ndim - 2))).expand_as(value)


# of the logits ----------------------------------------------------------------------------------------------------


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


# of the label -----------------------------------------------------------------------------------------------------


class _Label(Pattern):
    """Towards another distribution q over the classes: y + a (q - y) [tax 37]."""

    target = "label"
    largest = 1.0

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """q - y."""
        return self.goal(value, site) - value

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """q."""
        raise NotImplementedError


class Uniform(_Label):
    """Towards all classes alike, as label smoothing [tax 26]."""

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """1 / C."""
        return torch.full_like(value, 1 / value.shape[1])


class Redrawn(_Label):
    """Towards a class that a share of the samples draw anew in each epoch, as DisturbLabel.

    Args:
        share: Share of samples that draw, from all classes.
    """

    def __init__(self, share: float = 0.2) -> None:
        check_rate("share", share)
        self.share = share

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """e of the class drawn; the given one for samples that do not."""
        drawn = site.module.uniform("disturb_label", site.batch)
        return one_hot(disturb_label(site.ids(self), drawn, value.shape[1], self.share), value.shape[1], value.dtype)


class Predicted(_Label):
    """Towards the class that the network predicts, as hard bootstrapping [tax 37]."""

    lowers = True

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """e_argmax."""
        return one_hot(_raw(site).argmax(1), value.shape[1], value.dtype)


class Unlikely(_Label):
    """Towards the class that the network finds least likely [tax 25]."""

    lowers = False

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """e_argmin."""
        return one_hot(_raw(site).argmin(1), value.shape[1], value.dtype)


class Prediction(_Label):
    """Towards the predicted distribution, as soft bootstrapping [tax 37].

    Confident predictions of the given class lose by it: the direction is not one for all samples.

    Args:
        detach: Treat the prediction as a constant; the published code does not.
    """

    def __init__(self, detach: bool = False) -> None:
        self.detach = detach

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """p."""
        return (_raw(site) if self.detach else site.logits).to(value.dtype).softmax(1)


class ClassAverage(_Label):
    """Towards the average prediction of the class in the epoch before, as online label smoothing [tax 68, 69].

    Averages are over correctly predicted samples; the first epoch has the uniform distribution.
    """

    def goal(self, value: Tensor, site: Site) -> Tensor:
        """The class's average."""
        average: Tensor = getattr(site.module, f"{site.slot}_average")
        return average[site.ids(self)].to(value.dtype)

    def declare(self, module: PerturbationModule, slot: str) -> None:
        """Averages in use, and sums and counts of the running epoch."""
        classes = module.num_classes
        module.add_state(f"{slot}_average", torch.full((classes, classes), 1 / classes))
        module.add_state(f"{slot}_sums", torch.zeros(classes, classes))
        module.add_state(f"{slot}_counts", torch.zeros(classes))

    def update(self, module: PerturbationModule, slot: str, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Adds the predictions of all ranks."""
        prob, target = gather_rows(outputs["logits"].detach().float().softmax(1), batch.y)
        sums, counts = accumulate(prob, target, module.num_classes, "correct")
        getattr(module, f"{slot}_sums").add_(sums)
        getattr(module, f"{slot}_counts").add_(counts)

    def start_epoch(self, module: PerturbationModule, slot: str) -> None:
        """Puts the averages of the epoch before in use."""
        sums, counts = getattr(module, f"{slot}_sums"), getattr(module, f"{slot}_counts")
        if module._started_epoch >= 0:
            getattr(module, f"{slot}_average").copy_(class_average(sums, counts))
        sums.zero_()
        counts.zero_()


class PartnerLabel(_Label):
    """Towards the label of the sample's :class:`Partner`, as far as the input goes [Mixup].

    Args:
        alpha: α, as of the partner.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        check_positive("alpha", alpha)
        self.alpha = alpha

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """(1 - w)(y_j - y)."""
        return _to_partner(value, site, self.alpha)


# of the loss ------------------------------------------------------------------------------------------------------


class Relative(Pattern):
    """The loss itself with its sign turned, -l: an amount a multiplies the loss by 1 - a."""

    target = "loss"
    lowers = True
    signed = True
    largest = 1.0

    def limit(self, direction: str) -> float:
        """1 where a loss is lowered, none where it is raised."""
        return float("inf") if direction == "negative" else self.largest

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-l."""
        return -value


class Poly(Pattern):
    """The first polynomial term, -(1 - p_y), as PolyLoss; an amount of 1 takes all of it off cross-entropy."""

    target = "loss"
    lowers = True
    signed = True
    largest = 1.0

    def limit(self, direction: str) -> float:
        """1 where it is taken off, none where it is added."""
        return float("inf") if direction == "negative" else self.largest

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-(1 - p_y), with its gradient."""
        return log_probability(value, site).expm1()


class Slack(Pattern):
    """A constant that is taken off, down to 0: max(0, l - a) [tax 17]. What is below it is not trained on."""

    target = "loss"
    lowers = True

    def unit(self, value: Tensor, site: Site) -> Tensor:
        """-1."""
        return -torch.ones_like(value)

    def apply(self, value: Tensor, amount: Tensor, unit: Tensor) -> Tensor:
        """max(0, l - a)."""
        return super().apply(value, amount, unit).clamp(min=0)


def log_probability(value: Tensor, site: Site) -> Tensor:
    """log p_y of the unperturbed prediction ``[B]``, with its gradient, in the type of the losses."""
    log_p = torch.log_softmax(site.logits.to(value.dtype), 1)
    target = site.batch.y
    return log_p.gather(1, target[:, None])[:, 0] if target.ndim == 1 else (log_p * target).sum(1)


def _raw(site: Site) -> Tensor:
    return site.logits.detach()


def _to_partner(value: Tensor, site: Site, alpha: float) -> Tensor:
    module = site.module
    (everyone, keys), own = gather_batch(value.detach(), module.sample_keys(site.batch))
    partner = partners(module._draw_seed, module.current_epoch, keys)[own]
    key = keys.new_full((1,), module._batch_idx)
    weight = mixing_weights(module._draw_seed, module.current_epoch, key, alpha).to(value.dtype)
    return (1 - weight) * (everyone[partner] - value)
