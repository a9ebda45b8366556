"""Networks, each a class that takes ``num_classes``, and the split of any network into features and classifier."""

from lightning_perturb.nets.adjuster import Adjuster
from lightning_perturb.nets.bilstm import BiLSTMAttention, read_vectors
from lightning_perturb.nets.features import RecordedFeatures, find_classifier, record_features
from lightning_perturb.nets.meta import LabelCorrectionNet, MetaMLP
from lightning_perturb.nets.preact_resnet import PreActResNet18
from lightning_perturb.nets.resnet import ResNet, ResNet18, ResNet34
from lightning_perturb.nets.resnet_cifar import CifarResNet, ResNet20, ResNet32, ResNet44, ResNet56, ResNet110
from lightning_perturb.nets.se_resnet import CifarSEResNet, SEResNet110
from lightning_perturb.nets.small import MLP, ConvNet
from lightning_perturb.nets.torchvision import TorchvisionNet
from lightning_perturb.nets.transformers_classifier import TransformersClassifier
from lightning_perturb.nets.wide_resnet import WRN16_8, WRN28_10, WideResNet

__all__ = [
    "MLP",
    "WRN16_8",
    "WRN28_10",
    "Adjuster",
    "BiLSTMAttention",
    "CifarResNet",
    "CifarSEResNet",
    "ConvNet",
    "LabelCorrectionNet",
    "MetaMLP",
    "PreActResNet18",
    "RecordedFeatures",
    "ResNet",
    "ResNet18",
    "ResNet20",
    "ResNet32",
    "ResNet34",
    "ResNet44",
    "ResNet56",
    "ResNet110",
    "SEResNet110",
    "TorchvisionNet",
    "TransformersClassifier",
    "WideResNet",
    "find_classifier",
    "read_vectors",
    "record_features",
]
