"""Data modules that inject label noise and imbalance."""

from lightning_perturb.data.arrays import Arrays
from lightning_perturb.data.augment import Augmentation, CropFlip
from lightning_perturb.data.base import PerturbationDataModule
from lightning_perturb.data.cifar import CIFAR10, CIFAR100
from lightning_perturb.data.digits import Digits
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.image_folder import ImageFolder
from lightning_perturb.data.imbalance import Exponential, Imbalance, Step
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
    LabelNoise,
    LabelsFromFile,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
)
from lightning_perturb.data.wrap import Wrap

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Arrays",
    "Augmentation",
    "CIFAR10AsymmetricOneWay",
    "CIFAR10AsymmetricTwoWay",
    "CIFAR100Cyclic",
    "CIFAR100Hierarchical",
    "Chain",
    "CropFlip",
    "Digits",
    "DrawnDataModule",
    "Exponential",
    "FirstPercent",
    "Flip",
    "Flip2",
    "ImageFolder",
    "Imbalance",
    "InstancePerClass",
    "InstanceShared",
    "LabelNoise",
    "LabelsFromFile",
    "PairFlip",
    "PerturbationDataModule",
    "Step",
    "Symmetric",
    "TransitionMatrix",
    "Uniform",
    "Wrap",
]
