"""One of each label noise, and what they read."""

import numpy as np
import pytest

from lightning_perturb.data.label_noise import (
    Chain,
    CIFAR10AsymmetricOneWay,
    CIFAR10AsymmetricTwoWay,
    CIFAR100Cyclic,
    CIFAR100Hierarchical,
    FirstPercent,
    Flip,
    Flip2,
    InstancePerClass,
    InstanceShared,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def images(number, seed=5):
    return rng(seed).integers(0, 256, size=(number, 4, 4, 3), dtype=np.uint8)


def every_noise(rate=0.4):
    """One of each noise that fits ten classes, and one that fits a hundred."""
    identity = (np.eye(10) * (1 - rate) + np.roll(np.eye(10), 3, axis=1) * rate).tolist()
    ten = [
        Symmetric(rate),
        Uniform(rate),
        PairFlip(rate),
        Flip(rate),
        Flip2(rate),
        CIFAR10AsymmetricOneWay(rate),
        CIFAR10AsymmetricTwoWay(rate),
        InstanceShared(rate),
        InstancePerClass(rate, normalize=True),
        FirstPercent(rate),
        TransitionMatrix(identity),
        Chain([Symmetric(rate), PairFlip(rate)]),
    ]
    hundred = [CIFAR100Hierarchical(rate), CIFAR100Cyclic(rate), CIFAR100Cyclic(rate, "true")]
    return [pytest.param(noise, c, id=f"{type(noise).__name__}-{i}") for group, c in ((ten, 10), (hundred, 100))
            for i, noise in enumerate(group)]  # fmt: skip
