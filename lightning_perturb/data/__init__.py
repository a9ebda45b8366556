"""Data modules that inject label noise and imbalance."""

from lightning_perturb.data.animal10n import Animal10N
from lightning_perturb.data.arrays import Arrays
from lightning_perturb.data.attributes import CelebA, Waterbirds
from lightning_perturb.data.augment import (
    Augmentation,
    AugmentChain,
    CenterCrop,
    CropFlip,
    RandomCrop,
    RandomResizedCrop,
)
from lightning_perturb.data.base import PerturbationDataModule
from lightning_perturb.data.cifar import CIFAR10, CIFAR100
from lightning_perturb.data.civil_comments import CivilComments
from lightning_perturb.data.clothing1m import Clothing1M
from lightning_perturb.data.colored import Colored, ColoredDigits, ColoredMNIST
from lightning_perturb.data.digits import Digits
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.food101n import Food101N
from lightning_perturb.data.generated_reviews import GeneratedReviews
from lightning_perturb.data.glt import MSCOCOGLT, ImageNetGLT
from lightning_perturb.data.image_folder import ImageFolder
from lightning_perturb.data.image_lists import ImageLists, ImageNetLT, INaturalist2018, PlacesLT
from lightning_perturb.data.imagenet import ImageNet, TinyImageNet
from lightning_perturb.data.imbalance import Balanced, Exponential, Imbalance, Step
from lightning_perturb.data.imdb import IMDB
from lightning_perturb.data.inaturalist import INaturalist2017
from lightning_perturb.data.label_noise import (
    Chain,
    CIFAR10AsymmetricOneWay,
    CIFAR10AsymmetricTwoWay,
    CIFAR100Cyclic,
    CIFAR100Hierarchical,
    FalsePositives,
    FirstPercent,
    Flip,
    Flip2,
    InstancePerClass,
    InstanceShared,
    LabelNoise,
    LabelsFromFile,
    MissingLabels,
    MultiLabelSymmetric,
    PairFlip,
    Symmetric,
    TransitionMatrix,
    Uniform,
)
from lightning_perturb.data.lazy_images import LazyImages
from lightning_perturb.data.multi_label_digits import MultiLabelDigits
from lightning_perturb.data.multi_label_images import COCOMLT, MSCOCO, VOCMLT
from lightning_perturb.data.policies import AutoAugment, RandAugment
from lightning_perturb.data.tasks import Tasks
from lightning_perturb.data.text import TextDataModule
from lightning_perturb.data.text_table import TextTable
from lightning_perturb.data.tokenizers import Tokenizer, TransformersTokenizer, WordTokenizer, load_tokenizer
from lightning_perturb.data.two_gaussians import TwoGaussians
from lightning_perturb.data.wrap import Wrap

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "COCOMLT",
    "IMDB",
    "MSCOCO",
    "MSCOCOGLT",
    "VOCMLT",
    "Animal10N",
    "Arrays",
    "AugmentChain",
    "Augmentation",
    "AutoAugment",
    "Balanced",
    "CIFAR10AsymmetricOneWay",
    "CIFAR10AsymmetricTwoWay",
    "CIFAR100Cyclic",
    "CIFAR100Hierarchical",
    "CelebA",
    "CenterCrop",
    "Chain",
    "CivilComments",
    "Clothing1M",
    "Colored",
    "ColoredDigits",
    "ColoredMNIST",
    "CropFlip",
    "Digits",
    "DrawnDataModule",
    "Exponential",
    "FalsePositives",
    "FirstPercent",
    "Flip",
    "Flip2",
    "Food101N",
    "GeneratedReviews",
    "INaturalist2017",
    "INaturalist2018",
    "ImageFolder",
    "ImageLists",
    "ImageNet",
    "ImageNetGLT",
    "ImageNetLT",
    "Imbalance",
    "InstancePerClass",
    "InstanceShared",
    "LabelNoise",
    "LabelsFromFile",
    "LazyImages",
    "MissingLabels",
    "MultiLabelDigits",
    "MultiLabelSymmetric",
    "PairFlip",
    "PerturbationDataModule",
    "PlacesLT",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Step",
    "Symmetric",
    "Tasks",
    "TextDataModule",
    "TextTable",
    "TinyImageNet",
    "Tokenizer",
    "TransformersTokenizer",
    "TransitionMatrix",
    "TwoGaussians",
    "Uniform",
    "Waterbirds",
    "WordTokenizer",
    "Wrap",
    "load_tokenizer",
]
