"""The methods: each a LightningModule over the common base."""

from lightning_perturb.methods.bootstrapping import HardBootstrapping, SoftBootstrapping
from lightning_perturb.methods.cross_entropy import CrossEntropy
from lightning_perturb.methods.dlb import DLB
from lightning_perturb.methods.label_smoothing import LabelSmoothing
from lightning_perturb.methods.logpert import LogPert
from lightning_perturb.methods.mbls import MbLS
from lightning_perturb.methods.meta_logit_adjustment import MetaLogitAdjustment
from lightning_perturb.methods.meta_mixpert import MetaMixPert
from lightning_perturb.methods.meta_weight_net import MetaWeightNet
from lightning_perturb.methods.mixpert import MixPert
from lightning_perturb.methods.narl_adjuster import NARLAdjuster
from lightning_perturb.methods.online_label_smoothing import MixBootstrapping, OnlineLabelSmoothing
from lightning_perturb.methods.pgd_training import PGDTraining
from lightning_perturb.methods.proselflc import ProSelfLC
from lightning_perturb.methods.robust_losses import GCE, JS, MAE, RCE, SL, PolySoft, TruncatedGCE
from lightning_perturb.methods.self_paced_logpert import SelfPacedLogPert

__all__ = [
    "DLB",
    "GCE",
    "JS",
    "MAE",
    "RCE",
    "SL",
    "CrossEntropy",
    "HardBootstrapping",
    "LabelSmoothing",
    "LogPert",
    "MbLS",
    "MetaLogitAdjustment",
    "MetaMixPert",
    "MetaWeightNet",
    "MixBootstrapping",
    "MixPert",
    "NARLAdjuster",
    "OnlineLabelSmoothing",
    "PGDTraining",
    "PolySoft",
    "ProSelfLC",
    "SelfPacedLogPert",
    "SoftBootstrapping",
    "TruncatedGCE",
]
