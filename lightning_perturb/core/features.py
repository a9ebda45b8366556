"""What enters the network's classifier: how methods look at it, and move it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.nets.features import RecordedFeatures, find_classifier, move_features, record_features


class FeatureReader:
    """Reads the deep features of any network, and the weight of its classifier.

    Args:
        reader: What reads them, for messages.
        net: The network.
        classifier: Dotted name of the layer, an ``nn.Linear``, that gives the network's logits; None takes the
            ``nn.Linear`` that was registered last.

    Raises:
        ValueError: If the network has no such layer.
    """

    def __init__(self, reader: str, net: nn.Module, classifier: str | None) -> None:
        self._reads = f"{reader}(classifier={classifier!r}) reads the input of the network's last layer."
        self.classifier = classifier
        try:
            _, layer = find_classifier(net, classifier)
        except ValueError as error:
            raise ValueError(f"{self._reads} {error}") from error
        if layer.in_features < 1:
            raise ValueError(
                f"{self._reads} Its width is unknown until the network has run once. Run it on one batch before you "
                "give it away."
            )
        self.width = layer.in_features
        self._seen = False

    def recording(self, net: nn.Module) -> Any:
        """Records what enters the classifier in the forwards inside the ``with`` block; gives the recording."""
        return record_features(net, self.classifier)

    @contextmanager
    def moving(self, net: nn.Module, move: Callable[[Tensor, nn.Linear], Tensor], classes: int) -> Iterator[None]:
        """Lets a function change what enters the classifier in the forwards inside the ``with`` block.

        Args:
            net: The network.
            move: From the features ``[B, A]`` and the layer to the features that enter it instead.
            classes: Number of classes, which the layer must have as outputs.
        """

        def checked(features: Tensor, layer: nn.Linear) -> Tensor:
            if features.ndim != 2 or layer.weight.shape[0] != classes:
                raise ValueError(self._unfit("the classifier", features, layer.weight, classes))
            return move(features, layer)

        with move_features(net, checked, self.classifier):
            yield

    def check(self, logits: Tensor, recorded: RecordedFeatures) -> None:
        """Checks that the layer gives the logits; by their values in the first batch alone.

        Raises:
            ValueError: If it does not.
        """
        features, weight = recorded.features, recorded.weight
        if features.shape != (len(logits), self.width) or weight.shape[0] != logits.shape[1]:
            raise ValueError(self._unfit(repr(recorded.name), features, weight, logits.shape[1]))
        if self._seen:
            return
        self._seen = True
        with torch.no_grad():
            expected = F.linear(features, weight, recorded.bias)
            # half precision rounds by other kernels; what is not finite is told of by the loss
            tolerance = 1e-2 * expected.abs().max()
            if torch.isfinite(logits).all() and bool((logits - expected).abs().max() > tolerance):
                raise ValueError(
                    f"{self._reads} The outputs of {recorded.name!r} are not the network's logits. Name the layer "
                    "that gives the logits by classifier, and let nothing follow it."
                )

    def _unfit(self, name: str, features: Tensor, weight: Tensor, classes: int) -> str:
        return (
            f"{self._reads} {name} takes {tuple(features.shape)} and gives {weight.shape[0]} outputs, where "
            f"(B, {self.width}) and num_classes={classes} are needed. Name the layer that gives the logits by "
            "classifier."
        )


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
        self._reader = FeatureReader(type(self).__name__, self.net, classifier)
        self.num_features = self._reader.width

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits, and beside them the ``features`` and the classifier's ``weight`` that they were made of."""
        with self._reader.recording(self.net) as recorded:
            outputs = super().outputs(call, batch)
        self._check_classifier(outputs["logits"], recorded)
        return {**outputs, "features": recorded.features, "weight": recorded.weight}

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """As in the base; leaves the features in ``batch.extra`` for the hooks after it."""
        batch.extra["features"] = outputs["features"]
        return super().perturb_logits(logits, outputs, batch)

    def _check_classifier(self, logits: Tensor, recorded: RecordedFeatures) -> None:
        self._reader.check(logits, recorded)
