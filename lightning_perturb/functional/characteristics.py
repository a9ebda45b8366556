"""Training characteristics: what the perturbation network of Meta-IADA knows of a sample [iada 4].

The authors name two of their fifteen (loss and margin) and three aspects (learning difficulty, class distribution,
noise level); their list is unpublished, and this one is ours. Each characteristic is a function of an ``Observation``
that returns one number per sample, [B]. A list of your own may hold any of them and any function of the same form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._precision import full_precision
from lightning_perturb.functional.cross_entropy import cross_entropy, logit_gradient, margin, probability_margin


@dataclass
class Observation:
    """What is known of a batch when its characteristics are taken; all of it becomes constant.

    Attributes:
        logits: u, [B, C].
        target: The given class ids, [B] (int64).
        features: h, what enters the classifier, [B, A].
        weight: The classifier's weight W, [C, A].
        log_prior: log pi, the logarithm of the class frequencies, [C].
        class_loss: The running mean loss of each class, [C], see ``update_class_average``.
        mean: The running mean feature of each class, [C, A].
        variance: The running variance of the features of each class, [C, A].
        history: The running mean of each sample's own p_y over earlier epochs, [B]; where it is missing it counts as
            1 / C, the value of an untrained network.
    """

    logits: Tensor
    target: Tensor
    features: Tensor
    weight: Tensor
    log_prior: Tensor
    class_loss: Tensor
    mean: Tensor
    variance: Tensor
    history: Tensor | None = None

    def __post_init__(self) -> None:
        check_logits(self.logits)
        check_ids(self.target, self.logits.shape[0])
        batch, classes = self.logits.shape
        width = self.features.shape[-1]
        shapes = {
            "features": (batch, width),
            "weight": (classes, width),
            "log_prior": (classes,),
            "class_loss": (classes,),
            "mean": (classes, width),
            "variance": (classes, width),
            "history": (batch,),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            expected = shapes.get(field.name, value.shape)
            if value.shape != expected:
                raise ValueError(
                    f"{field.name} has the shape {tuple(value.shape)} where {expected} is needed beside logits of "
                    f"[{batch}, {classes}]."
                )
            setattr(self, field.name, upcast(value.detach()))

    @property
    def num_classes(self) -> int:
        """C."""
        return self.logits.shape[1]

    @cached_property
    def probabilities(self) -> Tensor:
        """p = S(u), [B, C]."""
        return torch.softmax(self.logits, 1)

    @cached_property
    def losses(self) -> Tensor:
        """The cross-entropy of each sample, [B]."""
        return cross_entropy(self.logits, self.target)

    @cached_property
    def gradient(self) -> Tensor:
        """p - e_y, the gradient of the cross-entropy in the logits, [B, C]."""
        return logit_gradient(self.logits, self.target)


Characteristic = Callable[[Observation], Tensor]


def sample_loss(seen: Observation) -> Tensor:
    """Difficulty: the cross-entropy -log p_y."""
    return seen.losses


def label_probability(seen: Observation) -> Tensor:
    """Difficulty: p_y."""
    return seen.losses.neg().exp()


def logit_margin(seen: Observation) -> Tensor:
    """Difficulty: u_y - max_{j != y} u_j."""
    return margin(seen.logits, seen.target)


def confidence_margin(seen: Observation) -> Tensor:
    """Difficulty: p_y - max_{j != y} p_j."""
    return probability_margin(seen.logits, seen.target)


def logit_gradient_norm(seen: Observation) -> Tensor:
    """Difficulty: the norm of the loss's gradient in the logits, ||p - e_y||."""
    return _norm(seen.gradient)


def feature_gradient_norm(seen: Observation) -> Tensor:
    """Difficulty: the norm of the loss's gradient in the features, ||(p - e_y) W||."""
    with full_precision(seen.weight):
        return _norm(seen.gradient @ seen.weight)


def relative_entropy(seen: Observation) -> Tensor:
    """Difficulty: the entropy of p over that of the uniform distribution, H(p) / log C."""
    entropy: Tensor = torch.special.entr(seen.probabilities).sum(1)
    return entropy / math.log(seen.num_classes)


def correctness(seen: Observation) -> Tensor:
    """Difficulty: 1 where the given class has the largest logit, else 0."""
    return (seen.logits.argmax(1) == seen.target).to(seen.logits.dtype)


def class_frequency(seen: Observation) -> Tensor:
    """Class distribution: log(C pi_y), 0 in a balanced set."""
    return seen.log_prior[seen.target] + math.log(seen.num_classes)


def average_class_loss(seen: Observation) -> Tensor:
    """Class distribution: the running mean loss of the given class."""
    return seen.class_loss[seen.target]


def relative_loss(seen: Observation) -> Tensor:
    """Class distribution: the loss minus the running mean loss of the given class."""
    return seen.losses - seen.class_loss[seen.target]


def classifier_norm(seen: Observation) -> Tensor:
    """Class distribution: ||w_y|| over its mean over the classes."""
    norms = _norm(seen.weight)
    return norms[seen.target] / norms.mean().clamp(min=torch.finfo(norms.dtype).tiny)


def classifier_cosine(seen: Observation) -> Tensor:
    """Class distribution: the cosine of the angle between the feature h and w_y."""
    cosine: Tensor = F.cosine_similarity(seen.features, seen.weight[seen.target])
    return cosine


def learning_history(seen: Observation) -> Tensor:
    """Noise level: the running mean of the sample's own p_y; 1 / C where no history is kept."""
    if seen.history is None:
        return seen.logits.new_full((len(seen.target),), 1 / seen.num_classes)
    return seen.history


def class_distance(seen: Observation) -> Tensor:
    """Noise level: the distance from the class mean in standard deviations, root mean square over the features."""
    spread = (seen.variance[seen.target] + 1e-5).sqrt()
    return _norm((seen.features - seen.mean[seen.target]) / spread) / math.sqrt(seen.features.shape[1])


CHARACTERISTICS: tuple[Characteristic, ...] = (
    sample_loss,
    label_probability,
    logit_margin,
    confidence_margin,
    logit_gradient_norm,
    feature_gradient_norm,
    relative_entropy,
    correctness,
    class_frequency,
    average_class_loss,
    relative_loss,
    classifier_norm,
    classifier_cosine,
    learning_history,
    class_distance,
)
"""The fifteen of this module; without sample indices leave ``learning_history`` out."""


def training_characteristics(seen: Observation, characteristics: Sequence[Characteristic] = CHARACTERISTICS) -> Tensor:
    """The characteristics of a batch, side by side.

    Args:
        seen: What is known of the batch.
        characteristics: Functions from an ``Observation`` to [B].

    Returns:
        [B, K], detached.

    Raises:
        ValueError: If there are none, or one does not return [B].
    """
    if not characteristics:
        raise ValueError("characteristics is empty. Name at least one function from an Observation to [B].")
    with torch.no_grad(), full_precision(seen.logits):
        columns = [f(seen) for f in characteristics]
    for f, values in zip(characteristics, columns, strict=True):
        if values.shape != seen.target.shape:
            raise ValueError(
                f"characteristic {getattr(f, '__name__', f)!r} returned the shape {tuple(values.shape)}. Return one "
                f"number per sample, [{len(seen.target)}]."
            )
    return torch.stack([values.to(seen.logits.dtype) for values in columns], 1)


def update_class_average(average: Tensor, values: Tensor, target: Tensor, momentum: float = 0.9) -> Tensor:
    """The running mean by class after one batch; classes without samples in it keep theirs.

    Start the losses from log C, the cross-entropy of an untrained network.

    Args:
        average: The running means, [C].
        values: One value per sample, [B]; taken as constants.
        target: Class ids, [B] (int64).
        momentum: The weight of the old value, in [0, 1).

    Returns:
        The new means, [C].

    Raises:
        ValueError: If momentum is outside its range or the shapes or dtypes do not fit.
    """
    check_range("momentum", momentum, 0.0, 1.0, open_high=True)
    check_ids(target, len(values))
    with torch.no_grad(), full_precision(average):
        # a product with the indicator of the classes sums in the same order in every run
        members = F.one_hot(target, len(average)).to(average.dtype)
        count = members.sum(0)
        mean = (values.to(average.dtype) @ members) / count.clamp(min=1)
        return torch.where(count > 0, torch.lerp(mean, average, momentum), average)


def update_moments(
    steps: Tensor, mean: Tensor, variance: Tensor, values: Tensor, momentum: float = 0.9
) -> tuple[Tensor, Tensor, Tensor]:
    """Running mean and variance of each characteristic after one batch.

    The first batches are averaged evenly, until a batch's weight has come down to 1 - momentum; so the start values do
    not matter. The variance is that of the mixture of old and new values. With several ranks give the values of all
    of them.

    Args:
        steps: The number of batches so far, a scalar tensor.
        mean: The running means, [K].
        variance: The running variances, [K].
        values: The characteristics of the batch, [B, K]; taken as constants. An empty batch changes nothing.
        momentum: The weight of the old value in the long run, in [0, 1).

    Returns:
        The new steps, mean and variance.

    Raises:
        ValueError: If momentum is outside its range or the shapes do not fit.
    """
    check_range("momentum", momentum, 0.0, 1.0, open_high=True)
    if values.ndim != 2 or mean.shape != values.shape[1:] or variance.shape != mean.shape:
        raise ValueError(
            f"values of shape {tuple(values.shape)}, mean of {tuple(mean.shape)} and variance of "
            f"{tuple(variance.shape)} must be [B, K], [K] and [K]."
        )
    if not len(values):
        return steps, mean, variance
    with torch.no_grad():
        values = values.to(mean.dtype)
        share = (1 / (steps + 1)).clamp(min=1 - momentum).to(mean.dtype)
        batch_variance, batch_mean = torch.var_mean(values, 0, correction=0)
        between = share * (1 - share) * (batch_mean - mean).square()
        return (
            steps + 1,
            mean + share * (batch_mean - mean),
            variance + share * (batch_variance - variance) + between,
        )


def standardize(values: Tensor, mean: Tensor, variance: Tensor, clip: float = 5.0) -> Tensor:
    """Characteristics in running standard deviations from their running mean, clipped.

    Args:
        values: The characteristics, [B, K].
        mean: The running means, [K].
        variance: The running variances, [K].
        clip: The largest size of the result, above 0.

    Returns:
        [B, K].

    Raises:
        ValueError: If clip is not positive.
    """
    check_positive("clip", clip)
    # a characteristic that has not varied so far must not blow up when it starts to
    return ((values - mean) / (variance + 1e-5).sqrt()).clamp(-clip, clip)


def _norm(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
