"""Decoupled training for long tails (Kang et al., 2020): features from all data, then a balanced classifier."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Coordinates
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.core.stages import TwoStageModule
from lightning_perturb.functional import scaled_logits, tau_normalized_logits
from lightning_perturb.methods.resampling import ReSampling
from lightning_perturb.nets import find_classifier


class ClassifierRetraining(TwoStageModule, ReSampling, FeatureModule):
    """cRT: cross-entropy on the data as it is, then a new classifier on balanced classes (Kang et al., 2020).

    In the second stage the classifier is drawn anew, as PyTorch draws a new layer, and is alone trained, on batches
    into which every class is drawn alike often. Everything before it stays as it is, with the batch norm and dropout of
    evaluation. As published, the rate begins anew: the authors take 90 epochs and then 10, in both of which it falls
    to 0 along a cosine.

    Args:
        from_epoch: First epoch of the second stage; 0 for a network that is already trained.
        **kwargs: Arguments of :class:`~lightning_perturb.core.stages.TwoStageModule` and
            :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    def __init__(self, *args: Any, from_epoch: int = 90, **kwargs: Any) -> None:
        super().__init__(*args, from_epoch=from_epoch, **kwargs)

    @property
    def _layer(self) -> nn.Linear:
        return find_classifier(self.net, self.classifier)[1]

    @property
    def rests(self) -> bool:
        """In the second stage."""
        return self.phase == "deferred"

    def held(self) -> list[nn.Parameter]:
        """In the second stage all but the classifier."""
        return self.all_but(self._layer.parameters()) if self.rests else []

    def begin_second_stage(self) -> None:
        """Draws the classifier anew, equal on all ranks and after any resume."""
        super().begin_second_stage()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            # not the run's own seed, which the first classifier may have been drawn from
            torch.manual_seed(self._draw_seed + 1)
            self._layer.reset_parameters()


class LearnableWeightScaling(TwoStageModule, ReSampling):
    """LWS: cross-entropy on the data as it is, then one learned scale per class (Kang et al., 2020).

    In the second stage the network stays as it is, with the batch norm and dropout of evaluation, and the scales of its
    logits, 1 at first, are trained on batches into which every class is drawn alike often. They are part of
    ``module(x)``, of evaluation and of prediction; the network by itself (``module.net``) gives the logits without
    them. As published, the rate begins anew (90 epochs and then 5, in both of which it falls to 0 along a cosine), the
    optimizer's weight decay holds for the scales too, and they scale the bias.

    Args:
        from_epoch: First epoch of the second stage; 0 for a network that is already trained.
        **kwargs: Arguments of :class:`~lightning_perturb.core.stages.TwoStageModule`.
    """

    def __init__(self, *args: Any, from_epoch: int = 90, **kwargs: Any) -> None:
        super().__init__(*args, from_epoch=from_epoch, **kwargs)
        self.class_scale = nn.Parameter(torch.ones(self.num_classes))

    @property
    def rests(self) -> bool:
        """In the second stage."""
        return self.phase == "deferred"

    def held(self) -> list[nn.Parameter]:
        """The scales, and in the second stage all but them."""
        return self.all_but([self.class_scale]) if self.phase == "deferred" else [self.class_scale]

    def run(self, call: Callable[..., Any], x: Any) -> Tensor:
        """f_c u_c."""
        return scaled_logits(super().run(call, x), self.class_scale)


class TauNormalization(FeatureModule):
    """Trains by plain cross-entropy and predicts by h · w_c / ||w_c||^τ (Kang et al., 2020).

    Rows of the classifier's weight grow with the frequency of their class. As published, the bias is left out. These
    logits are those that evaluation and prediction read; the network's own output is W h + b.

    Args:
        tau: τ: 1 makes all rows equally long, 0 takes nothing but the bias away. The authors choose it between 0 and 1
            on validation data.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "prior", "category")

    def __init__(self, *args: Any, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("tau", tau, zero=True)
        self.tau = tau

    def evaluation_logits(self, x: Any) -> Tensor:
        """h · w_c / ||w_c||^τ."""
        with self._reader.recording(self.net) as recorded:
            logits = super().evaluation_logits(x)
        self._check_classifier(logits, recorded)
        return tau_normalized_logits(recorded.features, recorded.weight, self.tau)
