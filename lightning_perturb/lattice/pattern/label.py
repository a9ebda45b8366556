"""Directions in the label: towards another distribution over the classes."""

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core import Batch, PerturbationModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.functional import accumulate, class_average, disturb_label, one_hot
from lightning_perturb.lattice.pattern.base import Pattern
from lightning_perturb.lattice.pattern.partner import to_partner
from lightning_perturb.lattice.site import Site


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
        drawn = site.module.uniform(f"{site.slot} disturb_label", site.batch)
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
        return to_partner(value, site, self.alpha)


def _raw(site: Site) -> Tensor:
    return site.logits.detach()
