"""R-BCE, negative-tolerant regularisation and their combinations: the distribution-balanced loss in its parts."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, CountedModule, MultiLabelModule
from lightning_perturb.functional import negative_tolerant_bias, rebalanced_weights
from lightning_perturb.methods.multi_label_focal import MultiLabelFocal


class RBCE(CountedModule, MultiLabelModule):
    """R-BCE: binary losses weighted by how often a sample is drawn for a class against how often at all.

    The weights put right what class-aware sampling does to samples of several labels, so the data module is asked for
    batches into which every class is drawn alike often.

    Args:
        resample: Ask for them, as published; False takes batches as they come, also from a loader of your own.
        weight_offset: The smallest weight, alpha of the distribution-balanced loss; published 0.1.
        weight_steepness: How steeply weights rise with the ratio, its beta; published 10.
        weight_centre: The ratio with half of the weight, its mu; published 0.3 for VOC-MLT, 0.2 for COCO-MLT.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "category")

    def __init__(
        self,
        *args: Any,
        resample: bool = True,
        weight_offset: float = 0.1,
        weight_steepness: float = 10.0,
        weight_centre: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("weight_offset", weight_offset, zero=True)
        check_positive("weight_steepness", weight_steepness)
        if resample:
            self.needs = replace(self.needs, balanced_from=self.warmup_epochs)
        self.weight_offset = weight_offset
        self.weight_steepness = weight_steepness
        self.weight_centre = weight_centre

    def entry_losses(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Weighted losses ``[B, C]``."""
        weights = rebalanced_weights(
            target, self.class_counts, self.weight_offset, self.weight_steepness, self.weight_centre
        )
        return weights * super().entry_losses(logits, target, batch)


class RBCEFocal(RBCE, MultiLabelFocal):
    """R-BCE over focal losses.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.RBCE` and
            :class:`~lightning_perturb.methods.MultiLabelFocal`.
    """


class NTR(CountedModule, MultiLabelModule):
    """Negative-tolerant regularisation: logits lowered for rare classes, and negatives that saturate early [lpl 10-11].

    With z = u - v, v_c = kappa / tolerance log(N / n_c - 1), the loss of a negative is softplus(tolerance z) /
    tolerance. Evaluation reads the plain logits.

    Args:
        kappa: Strength of the perturbation; published 0.05.
        tolerance: lambda, how early negatives saturate; 1 tolerates none. Published 5 for VOC-MLT, 2 for COCO-MLT.
        train_samples: N, size of the training set, for data modules that do not tell.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), "prior", "corpus")

    bias: Tensor

    def __init__(
        self,
        *args: Any,
        kappa: float = 0.05,
        tolerance: float = 5.0,
        train_samples: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("kappa", kappa, zero=True)
        check_positive("tolerance", tolerance)
        if train_samples is not None:
            check_positive("train_samples", train_samples)
        self.kappa = kappa
        self.tolerance = tolerance
        self._given_samples = train_samples
        self.add_state("bias", torch.zeros(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The perturbation of each class."""
        super().use_counts(counts)
        total = self._given_samples or (self.facts.train_samples if self.facts is not None else 0)
        if not total:
            raise ValueError(
                f"{type(self).__name__} needs the number of training samples. Use a lightning_perturb data module, or "
                "give train_samples=..."
            )
        self.bias.copy_(negative_tolerant_bias(counts, total, self.kappa, self.tolerance))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u - v."""
        return super().perturb_logits(logits, outputs, batch) + self.bias

    def entry_losses(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """Losses whose negatives are stretched by the tolerance and divided by it ``[B, C]``."""
        tolerance = torch.where(target == 1, 1.0, self.tolerance)
        return super().entry_losses(tolerance * logits, target, batch) / tolerance


class RBCENTR(NTR, RBCE):
    """R-BCE with negative-tolerant regularisation: the distribution-balanced loss without focus.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.NTR` and :class:`~lightning_perturb.methods.RBCE`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), "prior", ("category", "corpus"))


class RBCEFocalNTR(NTR, RBCEFocal):
    """R-BCE-Focal with negative-tolerant regularisation: the distribution-balanced loss.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.NTR` and
            :class:`~lightning_perturb.methods.RBCEFocal`.
    """

    coordinates = Coordinates.of(("logit", "loss"), ("positive", "negative"), "prior", ("category", "corpus"))
