"""Losses weighted by class: by inverse frequency, or by effective numbers."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_choice, check_range
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import CountedModule
from lightning_perturb.core.weighted import WeightedModule
from lightning_perturb.functional import (
    binary_focal_entries,
    effective_number_weights,
    inverse_frequency_weights,
    one_hot,
)
from lightning_perturb.methods.focal import Focal
from lightning_perturb.nets import find_classifier


class ReWeighting(WeightedModule, CountedModule):
    """Every sample's loss times a weight of its class, 1 / n_c, scaled so that the weights of all classes sum to C.

    Combines with any loss: ``class LDAMDRW(ClassBalanced, LDAM)``.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.weighted.WeightedModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "category")

    class_weight: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_state("class_weight", torch.ones(self.num_classes), persistent=False)

    def class_weights(self, counts: Tensor) -> Tensor:
        """The weights ``[C]`` from the numbers of samples ``[C]``."""
        return inverse_frequency_weights(counts)

    def use_counts(self, counts: Tensor) -> None:
        """The weights."""
        super().use_counts(counts)
        self.class_weight.copy_(self.class_weights(counts))

    def sample_weights(self, batch: Batch) -> Tensor:
        """w_y, or its mean over soft labels."""
        if batch.y.ndim == 1:
            return self.class_weight[batch.y]
        return batch.y.to(self.class_weight.dtype) @ self.class_weight


class ClassBalanced(ReWeighting):
    """Cross-entropy weighted by the inverse effective number of samples, (1 - β) / (1 - β^n_c).

    Args:
        beta: β, from 0 (no weighting) towards 1 (inverse frequency); searched in {0.9, 0.99, 0.999, 0.9999}.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.ReWeighting`.
    """

    def __init__(self, *args: Any, beta: float = 0.9999, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.beta = beta

    def class_weights(self, counts: Tensor) -> Tensor:
        """(1 - β) / (1 - β^n_c), scaled to sum to C."""
        return effective_number_weights(counts, self.beta)


class ClassBalancedFocal(ClassBalanced, Focal):
    """The class-balanced focal loss: effective-number weights on a focal loss.

    Args:
        form: ``sigmoid``: every class is its own yes-or-no question, and a sample's loss the sum over classes (authors'
            code). ``softmax``: the focal loss of softmax probabilities.
        gamma: γ, searched in {0.5, 1, 2}.
        init_bias: Start the last layer's bias at -log(C - 1), as the authors do for ``sigmoid``: all classes are
            unlikely at first.
        classifier: Dotted name of the last layer for ``init_bias``; None takes the ``nn.Linear`` registered last.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.ClassBalanced`.
    """

    def __init__(
        self,
        *args: Any,
        form: Literal["sigmoid", "softmax"] = "sigmoid",
        gamma: float = 1.0,
        init_bias: bool = False,
        classifier: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, gamma=gamma, **kwargs)
        check_choice("form", form, ("sigmoid", "softmax"))
        self.form = form
        if init_bias:
            name, layer = find_classifier(self.net, classifier)
            if layer.bias is None:
                raise ValueError(
                    f"init_bias=True finds no bias in the last layer {name!r}. Give the layer a bias, or leave "
                    "init_bias away."
                )
            nn.init.constant_(layer.bias, -math.log(max(self.num_classes - 1, 1)))

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The focal loss, not yet weighted."""
        if self.form == "softmax":
            return super().sample_loss(logits, target, batch)
        return binary_focal_entries(logits, one_hot(target, self.num_classes), self.gamma).sum(1)
