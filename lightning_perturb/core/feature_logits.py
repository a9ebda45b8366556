"""The base of methods that compare features with the classifier's weight in a way of their own."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_perturb.core.features import FeatureModule
from lightning_perturb.nets.features import record_features


class FeatureLogitsModule(FeatureModule):
    """A method whose logits are made of features and classifier weight otherwise than by W h + b.

    They take the place of the network's own everywhere: in training, in evaluation and in ``module(x)``. Only epochs of
    warm-up train and validate the network's own logits. The network by itself (``module.net``) still gives W h + b.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    def classify(self, features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
        """Logits ``[B, C]``.

        Args:
            features: h ``[B, A]``.
            weight: W ``[C, A]``.
            logits: The network's own, W h + b ``[B, C]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its logits are.")

    def run(self, call: Callable[..., Any], x: Any) -> Tensor:
        """Logits ``[B, C]`` of ``call`` on an input, by :meth:`classify`."""
        with record_features(self.net, self.classifier) as recorded:
            plain = super().run(call, x)
        self._check_classifier(plain, recorded)
        # the validation of these epochs too: what is trained is what is scored
        fitting = self.training or (self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING)
        if fitting and self.phase == "warmup":
            return plain
        logits = self.classify(recorded.features, recorded.weight, plain)
        # data-parallel training wants a gradient of the bias too, where that plays no part
        return logits + 0 * plain if torch.is_grad_enabled() else logits
