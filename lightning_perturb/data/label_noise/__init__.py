"""Label noise: given labels drawn once from true labels."""

from lightning_perturb.data.label_noise.base import ClassConditional, LabelNoise
from lightning_perturb.data.label_noise.chain import Chain
from lightning_perturb.data.label_noise.cifar import (
    CIFAR10AsymmetricOneWay,
    CIFAR10AsymmetricTwoWay,
    CIFAR100Cyclic,
    CIFAR100Hierarchical,
)
from lightning_perturb.data.label_noise.class_conditional import (
    Flip,
    Flip2,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
)
from lightning_perturb.data.label_noise.first_percent import FirstPercent
from lightning_perturb.data.label_noise.from_file import LabelsFromFile
from lightning_perturb.data.label_noise.instance import InstanceDependent, InstancePerClass, InstanceShared
from lightning_perturb.data.label_noise.multi_label import FalsePositives, MissingLabels, MultiLabelSymmetric
from lightning_perturb.data.label_noise.realized import (
    noise_rate,
    realized_entry_matrices,
    realized_transition_matrix,
)

__all__ = [
    "CIFAR10AsymmetricOneWay",
    "CIFAR10AsymmetricTwoWay",
    "CIFAR100Cyclic",
    "CIFAR100Hierarchical",
    "Chain",
    "ClassConditional",
    "FalsePositives",
    "FirstPercent",
    "Flip",
    "Flip2",
    "InstanceDependent",
    "InstancePerClass",
    "InstanceShared",
    "LabelNoise",
    "LabelsFromFile",
    "MissingLabels",
    "MultiLabelSymmetric",
    "PairFlip",
    "Symmetric",
    "TransitionMatrix",
    "Uniform",
    "noise_rate",
    "realized_entry_matrices",
    "realized_transition_matrix",
]
