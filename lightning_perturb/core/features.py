"""The base of methods that look at what enters the network's classifier."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.nets.features import RecordedFeatures, find_classifier, record_features


class FeatureModule(PerturbationModule):
    """A method that reads the deep features of any network and the weight of its classifier.

    :meth:`outputs` has them as ``features`` ``[B, A]`` and ``weight`` ``[C, A]``, those of the very forward that gave
    the logits; gradients flow through both.

    Args:
        classifier: Dotted name of the layer, an ``nn.Linear``, that gives the network's logits; None takes the
            ``nn.Linear`` that was registered last.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If the network has no such layer. At the first batch: if the layer does not give the logits.
    """

    def __init__(self, *args: Any, classifier: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.classifier = classifier
        try:
            _, layer = find_classifier(self.net, classifier)
        except ValueError as error:
            raise ValueError(f"{self._reads_features} {error}") from error
        if layer.in_features < 1:
            raise ValueError(
                f"{self._reads_features} Its width is unknown until the network has run once. Run it on one batch "
                "before you give it away."
            )
        self.num_features = layer.in_features
        self._classifier_seen = False

    @property
    def _reads_features(self) -> str:
        return f"{type(self).__name__}(classifier={self.classifier!r}) reads the input of the network's last layer."

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits, and beside them the ``features`` and the classifier's ``weight`` that they were made of."""
        with record_features(self.net, self.classifier) as recorded:
            outputs = super().outputs(call, batch)
        self._check_classifier(outputs["logits"], recorded)
        return {**outputs, "features": recorded.features, "weight": recorded.weight}

    def _check_classifier(self, logits: Tensor, recorded: RecordedFeatures) -> None:
        features, weight = recorded.features, recorded.weight
        if features.shape != (len(logits), self.num_features) or weight.shape[0] != self.num_classes:
            raise ValueError(
                f"{self._reads_features} {recorded.name!r} takes {tuple(features.shape)} and gives {weight.shape[0]} "
                f"outputs, where (B, {self.num_features}) and num_classes={self.num_classes} are needed. Name the "
                "layer that gives the logits by classifier."
            )
        if self._classifier_seen:
            return
        self._classifier_seen = True
        with torch.no_grad():
            expected = F.linear(features, weight, recorded.bias)
            # half precision rounds by other kernels; what is not finite is told of by the loss
            tolerance = 1e-2 * expected.abs().max()
            if torch.isfinite(logits).all() and bool((logits - expected).abs().max() > tolerance):
                raise ValueError(
                    f"{self._reads_features} The outputs of {recorded.name!r} are not the network's logits. Name the "
                    "layer that gives the logits by classifier, and let nothing follow it."
                )
