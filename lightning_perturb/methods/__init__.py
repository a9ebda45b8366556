"""The methods: each a LightningModule over the common base."""

from lightning_perturb.methods.active_passive import ActivePassiveLoss
from lightning_perturb.methods.adversarial_label_smoothing import AdversarialLabelSmoothing
from lightning_perturb.methods.arcface import ArcFace, CategoryArcFace
from lightning_perturb.methods.binary_cross_entropy import BinaryCrossEntropy
from lightning_perturb.methods.bootstrapping import HardBootstrapping, SoftBootstrapping
from lightning_perturb.methods.center_loss import CenterLoss
from lightning_perturb.methods.class_weights import ClassBalanced, ClassBalancedFocal, ReWeighting
from lightning_perturb.methods.co_teaching import CoTeaching, JoCoR
from lightning_perturb.methods.confidence_penalty import ConfidencePenalty
from lightning_perturb.methods.coral import CORAL
from lightning_perturb.methods.cross_entropy import CrossEntropy
from lightning_perturb.methods.deconfound_tde import DeconfoundTDE
from lightning_perturb.methods.decoupling import ClassifierRetraining, LearnableWeightScaling, TauNormalization
from lightning_perturb.methods.determinant_information import DMI
from lightning_perturb.methods.dimensionality_driven import D2L
from lightning_perturb.methods.distribution_balanced import NTR, RBCE, RBCENTR, RBCEFocal, RBCEFocalNTR
from lightning_perturb.methods.disturb_label import DisturbLabel
from lightning_perturb.methods.dlb import DLB
from lightning_perturb.methods.domain_mix import LISA, DomainMix
from lightning_perturb.methods.fish import Fish
from lightning_perturb.methods.focal import Focal
from lightning_perturb.methods.forward_correction import ForwardCorrection
from lightning_perturb.methods.gold_loss_correction import GoldLossCorrection
from lightning_perturb.methods.group_dro import UW, GroupDRO
from lightning_perturb.methods.iada import IADA
from lightning_perturb.methods.irm import IBIRM, IRM
from lightning_perturb.methods.isda import ISDA
from lightning_perturb.methods.isda_lpl import ISDALPL
from lightning_perturb.methods.knowledge_distillation import BalancedKnowledgeDistillation, KnowledgeDistillation
from lightning_perturb.methods.label_smoothing import LabelSmoothing
from lightning_perturb.methods.lade import LADE
from lightning_perturb.methods.large_margin import LargeMarginSoftmax
from lightning_perturb.methods.ldam import LDAM, LDAMDRW
from lightning_perturb.methods.learning_to_reweight import L2RW
from lightning_perturb.methods.logit_adjustment import LogitAdjustedLPL, LogitAdjustment, PostHocLogitAdjustment
from lightning_perturb.methods.logit_compensation import LC, RBCELC, RBCEFocalLC
from lightning_perturb.methods.logpert import LogPert
from lightning_perturb.methods.lpl import LPL
from lightning_perturb.methods.mbls import MbLS
from lightning_perturb.methods.meta_class_weight import MetaClassWeight
from lightning_perturb.methods.meta_iada import MetaIADA
from lightning_perturb.methods.meta_label_correction import MLC
from lightning_perturb.methods.meta_logit_adjustment import MetaLogitAdjustment
from lightning_perturb.methods.meta_mixpert import MetaMixPert
from lightning_perturb.methods.meta_weight_net import MetaWeightNet
from lightning_perturb.methods.metasaug import MetaSAug
from lightning_perturb.methods.mixpert import MixPert
from lightning_perturb.methods.mixup import MetaMixUp, Mixup
from lightning_perturb.methods.multi_label_focal import MultiLabelCBFocal, MultiLabelFocal
from lightning_perturb.methods.multi_label_ldam import MultiLabelLDAM
from lightning_perturb.methods.multi_label_lpl import RBCELPL, MultiLabelLPL, RBCEFocalLPL
from lightning_perturb.methods.multi_label_re_sampling import MultiLabelReSampling, MultiLabelReSamplingFocal
from lightning_perturb.methods.multi_label_re_weighting import MultiLabelReWeighting
from lightning_perturb.methods.narl_adjuster import NARLAdjuster
from lightning_perturb.methods.narl_multi_task import NARLMultiTask
from lightning_perturb.methods.online_label_smoothing import MixBootstrapping, OnlineLabelSmoothing
from lightning_perturb.methods.oracle_robust_loss import OracleRobustLoss
from lightning_perturb.methods.perturb import MetaPerturb, Perturb
from lightning_perturb.methods.pgd_training import PGDTraining
from lightning_perturb.methods.polyloss import PolyLoss
from lightning_perturb.methods.proselflc import ProSelfLC
from lightning_perturb.methods.resampling import ClassBalancedFineTuning, ReSampling
from lightning_perturb.methods.risda import RISDA
from lightning_perturb.methods.robust_losses import GCE, JS, MAE, RCE, SL, PolySoft, TruncatedGCE
from lightning_perturb.methods.self_paced_logpert import SelfPacedLogPert
from lightning_perturb.methods.transferred_robust_loss import TransferredRobustLoss
from lightning_perturb.methods.vrex import VREx

__all__ = [
    "CORAL",
    "D2L",
    "DLB",
    "DMI",
    "GCE",
    "IADA",
    "IBIRM",
    "IRM",
    "ISDA",
    "ISDALPL",
    "JS",
    "L2RW",
    "LADE",
    "LC",
    "LDAM",
    "LDAMDRW",
    "LISA",
    "LPL",
    "MAE",
    "MLC",
    "NTR",
    "RBCE",
    "RBCELC",
    "RBCELPL",
    "RBCENTR",
    "RCE",
    "RISDA",
    "SL",
    "UW",
    "ActivePassiveLoss",
    "AdversarialLabelSmoothing",
    "ArcFace",
    "BalancedKnowledgeDistillation",
    "BinaryCrossEntropy",
    "CategoryArcFace",
    "CenterLoss",
    "ClassBalanced",
    "ClassBalancedFineTuning",
    "ClassBalancedFocal",
    "ClassifierRetraining",
    "CoTeaching",
    "ConfidencePenalty",
    "CrossEntropy",
    "DeconfoundTDE",
    "DisturbLabel",
    "DomainMix",
    "Fish",
    "Focal",
    "ForwardCorrection",
    "GoldLossCorrection",
    "GroupDRO",
    "HardBootstrapping",
    "JoCoR",
    "KnowledgeDistillation",
    "LabelSmoothing",
    "LargeMarginSoftmax",
    "LearnableWeightScaling",
    "LogPert",
    "LogitAdjustedLPL",
    "LogitAdjustment",
    "MbLS",
    "MetaClassWeight",
    "MetaIADA",
    "MetaLogitAdjustment",
    "MetaMixPert",
    "MetaMixUp",
    "MetaPerturb",
    "MetaSAug",
    "MetaWeightNet",
    "MixBootstrapping",
    "MixPert",
    "Mixup",
    "MultiLabelCBFocal",
    "MultiLabelFocal",
    "MultiLabelLDAM",
    "MultiLabelLPL",
    "MultiLabelReSampling",
    "MultiLabelReSamplingFocal",
    "MultiLabelReWeighting",
    "NARLAdjuster",
    "NARLMultiTask",
    "OnlineLabelSmoothing",
    "OracleRobustLoss",
    "PGDTraining",
    "Perturb",
    "PolyLoss",
    "PolySoft",
    "PostHocLogitAdjustment",
    "ProSelfLC",
    "RBCEFocal",
    "RBCEFocalLC",
    "RBCEFocalLPL",
    "RBCEFocalNTR",
    "ReSampling",
    "ReWeighting",
    "SelfPacedLogPert",
    "SoftBootstrapping",
    "TauNormalization",
    "TransferredRobustLoss",
    "TruncatedGCE",
    "VREx",
]
