"""De-confound-TDE: what all features share by the drift of training is taken off the predictions."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.distributed import sum_over_ranks
from lightning_perturb.core.feature_logits import FeatureLogitsModule
from lightning_perturb.functional import drift_cosines, multi_head_logits, tde_logits


class DeconfoundTDE(FeatureLogitsModule):
    """Normalised logits in training, their total direct effect in evaluation (Tang et al., 2020) [iada Tables 2, 4].

    Training is cross-entropy on s / K Σ_k (h_k / ||h_k||)·(w_ck / (||w_ck|| + γ)) over K parts of feature and weight,
    while a moving average of the features follows the direction in which momentum carries them, towards the head of a
    long tail. Evaluation and prediction take α times the part of h_k / ||h_k|| along it off; ``module(x)`` gives the
    logits of training. The last layer's bias plays no part.

    Args:
        alpha: α, which training does not know of: 3 for ImageNet-LT, 1 for CIFAR-10-LT, 1.5 for CIFAR-100-LT. None
            takes what the authors advise without validation data: 1 over the mean cosine of features and direction,
            here of the moving average over training, and at most 10.
        heads: K, a divisor of the number of features.
        scale: s, τ in the paper.
        gamma: γ.
        average_momentum: How much of the moving average stays in every batch.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "prior", "corpus")

    feature_drift: Tensor
    drift_cosine: Tensor
    drift_weight: Tensor

    def __init__(
        self,
        *args: Any,
        alpha: float | None = None,
        heads: int = 2,
        scale: float = 16.0,
        gamma: float = 1 / 32,
        average_momentum: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if alpha is not None:
            check_positive("alpha", alpha, zero=True)
        check_positive("scale", scale)
        check_positive("gamma", gamma, zero=True)
        check_range("average_momentum", average_momentum, 0.0, 1.0, open_high=True)
        if heads < 1 or self.num_features % heads:
            raise ValueError(f"heads={heads} does not divide the {self.num_features} features. Choose a divisor.")
        self.alpha = alpha
        self.heads = heads
        self.scale = scale
        self.gamma = gamma
        self.average_momentum = average_momentum
        self.add_state("feature_drift", torch.zeros(self.num_features))
        self.add_state("drift_cosine", torch.zeros(()))
        self.add_state("drift_weight", torch.zeros(()))

    def classify(self, features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
        """The logits of training."""
        return multi_head_logits(features, weight, self.heads, self.scale, self.gamma)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Moves the average by the features of all devices' samples."""
        super().update_state(outputs, batch)
        if self.phase == "warmup":
            return
        features = outputs["features"].detach().to(self.feature_drift.dtype)
        total = sum_over_ranks(torch.cat([features.sum(0), features.new_tensor([len(features)])]))
        # not divided by the sum of its weights: its direction is all that is read
        self.feature_drift.mul_(self.average_momentum).add_(total[:-1] / total[-1])
        cosines = drift_cosines(features, self.feature_drift, self.heads).mean(1).sum()
        self.drift_cosine.mul_(self.average_momentum).add_(sum_over_ranks(cosines) / total[-1])
        self.drift_weight.mul_(self.average_momentum).add_(1.0)

    @property
    def strength(self) -> float | Tensor:
        """α."""
        if self.alpha is not None:
            return self.alpha
        return self.drift_weight / self.drift_cosine.clamp(min=0.1 * self.drift_weight)

    def evaluation_logits(self, x: Any) -> Tensor:
        """The total direct effect; before there is an average, and in warm-up, what is trained."""
        with self._reader.recording(self.net) as recorded:
            logits = super().evaluation_logits(x)
        if not self.feature_drift.any():
            return logits
        return tde_logits(
            recorded.features, recorded.weight, self.feature_drift, self.strength, self.heads, self.scale, self.gamma
        )
