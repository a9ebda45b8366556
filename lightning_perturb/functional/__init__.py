"""Pure tensor functions: losses, perturbations and targets, without Lightning and without state.

Logits are [B, C]; a target is class ids [B] (int64) or, where the function says so, soft labels [B, C]; losses are
per sample, [B]. Half-precision logits are computed in float32.
"""

from lightning_perturb.functional.adjuster import (
    adjust,
    gce_hyperparameters,
    js_hyperparameters,
    polysoft_hyperparameters,
    sl_hyperparameters,
)
from lightning_perturb.functional.bootstrapping import hard_bootstrapping_target, soft_bootstrapping_target
from lightning_perturb.functional.characteristics import (
    Observation,
    average_class_loss,
    class_distance,
    class_frequency,
    classifier_cosine,
    classifier_norm,
    confidence_margin,
    correctness,
    feature_gradient_norm,
    label_probability,
    learning_history,
    logit_gradient_norm,
    logit_margin,
    relative_entropy,
    relative_loss,
    sample_loss,
    standardize,
    training_characteristics,
    update_class_average,
    update_moments,
)
from lightning_perturb.functional.cross_entropy import (
    binary_cross_entropy,
    cross_entropy,
    logit_gradient,
    margin,
    one_hot,
    probability_margin,
)
from lightning_perturb.functional.dlb import dlb_loss
from lightning_perturb.functional.forward_correction import estimate_transition, forward_corrected_loss
from lightning_perturb.functional.gce import gce_loss, truncated_gce_keep, truncated_gce_loss
from lightning_perturb.functional.iada import (
    fairness_term,
    feature_gradient,
    generalization_term,
    iada_logits,
    robustness_term,
)
from lightning_perturb.functional.isda import (
    BatchStatistics,
    ClassCovariance,
    batch_statistics,
    class_covariance_update,
    isda_logits,
    isda_perturbation,
    isda_term,
    pool,
)
from lightning_perturb.functional.js import js_loss
from lightning_perturb.functional.label_perturbation import perturb_label
from lightning_perturb.functional.label_smoothing import smooth
from lightning_perturb.functional.logpert import logpert, logpert_loss, logpert_step
from lightning_perturb.functional.mbls import mbls_penalty
from lightning_perturb.functional.mix_bootstrapping import mix_bootstrapping_target
from lightning_perturb.functional.mixpert import hard_by_share, hard_by_value, positive_perturbation, sample_bounds
from lightning_perturb.functional.noise_tolerance import (
    class_conditional_noise_bound,
    gce_spread,
    js_spread,
    loss_sum_range,
    noise_gaps,
    oracle_class_conditional_noise_bound,
    oracle_symmetric_noise_bounds,
    polysoft_spread,
    rce_spread,
    symmetric_noise_bounds,
    symmetric_transition,
)
from lightning_perturb.functional.online_label_smoothing import accumulate, class_average, online_label_smoothing_target
from lightning_perturb.functional.pgd import l2_start, pgd, uniform_start
from lightning_perturb.functional.polysoft import polysoft_loss
from lightning_perturb.functional.proselflc import proselflc_target, trust
from lightning_perturb.functional.self_paced import (
    linear_spl_weights,
    logarithmic_spl_weights,
    loss_ratio,
    mixture_spl_weights,
    spl_weights,
)
from lightning_perturb.functional.sl import mae_loss, rce_loss, sl_loss

__all__ = [
    "BatchStatistics",
    "ClassCovariance",
    "Observation",
    "accumulate",
    "adjust",
    "average_class_loss",
    "batch_statistics",
    "binary_cross_entropy",
    "class_average",
    "class_conditional_noise_bound",
    "class_covariance_update",
    "class_distance",
    "class_frequency",
    "classifier_cosine",
    "classifier_norm",
    "confidence_margin",
    "correctness",
    "cross_entropy",
    "dlb_loss",
    "estimate_transition",
    "fairness_term",
    "feature_gradient",
    "feature_gradient_norm",
    "forward_corrected_loss",
    "gce_hyperparameters",
    "gce_loss",
    "gce_spread",
    "generalization_term",
    "hard_bootstrapping_target",
    "hard_by_share",
    "hard_by_value",
    "iada_logits",
    "isda_logits",
    "isda_perturbation",
    "isda_term",
    "js_hyperparameters",
    "js_loss",
    "js_spread",
    "l2_start",
    "label_probability",
    "learning_history",
    "linear_spl_weights",
    "logarithmic_spl_weights",
    "logit_gradient",
    "logit_gradient_norm",
    "logit_margin",
    "logpert",
    "logpert_loss",
    "logpert_step",
    "loss_ratio",
    "loss_sum_range",
    "mae_loss",
    "margin",
    "mbls_penalty",
    "mix_bootstrapping_target",
    "mixture_spl_weights",
    "noise_gaps",
    "one_hot",
    "online_label_smoothing_target",
    "oracle_class_conditional_noise_bound",
    "oracle_symmetric_noise_bounds",
    "perturb_label",
    "pgd",
    "polysoft_hyperparameters",
    "polysoft_loss",
    "polysoft_spread",
    "pool",
    "positive_perturbation",
    "probability_margin",
    "proselflc_target",
    "rce_loss",
    "rce_spread",
    "relative_entropy",
    "relative_loss",
    "robustness_term",
    "sample_bounds",
    "sample_loss",
    "sl_hyperparameters",
    "sl_loss",
    "smooth",
    "soft_bootstrapping_target",
    "spl_weights",
    "standardize",
    "symmetric_noise_bounds",
    "symmetric_transition",
    "training_characteristics",
    "truncated_gce_keep",
    "truncated_gce_loss",
    "trust",
    "uniform_start",
    "update_class_average",
    "update_moments",
]
