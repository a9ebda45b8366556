"""Pure tensor functions: losses, perturbations and targets, without Lightning and without state.

Logits are [B, C]; a target is class ids [B] (int64) or, where the function says so, soft labels [B, C]; losses are
per sample, [B]. Half-precision logits are computed in float32.
"""

from lightning_perturb.functional.active_passive import normalized_cross_entropy, normalized_focal_loss
from lightning_perturb.functional.adjuster import (
    adjust,
    gce_hyperparameters,
    js_hyperparameters,
    polysoft_hyperparameters,
    sl_hyperparameters,
)
from lightning_perturb.functional.adversarial_label_smoothing import adversarial_label_smoothing_target
from lightning_perturb.functional.apgd import apgd, apgd_checkpoints
from lightning_perturb.functional.arcface import arcface_logits
from lightning_perturb.functional.bootstrapping import hard_bootstrapping_target, soft_bootstrapping_target
from lightning_perturb.functional.center_loss import center_loss, update_centers
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
from lightning_perturb.functional.class_balanced import (
    class_balanced_focal_loss,
    effective_number_weights,
    inverse_frequency_weights,
)
from lightning_perturb.functional.confidence_penalty import confidence_penalty
from lightning_perturb.functional.coral import coral_penalty
from lightning_perturb.functional.cosine import cosine_logits
from lightning_perturb.functional.cross_entropy import (
    binary_cross_entropy,
    binary_cross_entropy_entries,
    cross_entropy,
    logit_gradient,
    margin,
    one_hot,
    probability_margin,
)
from lightning_perturb.functional.decoupling import scaled_logits, tau_normalized_logits, tau_normalized_weight
from lightning_perturb.functional.determinant_information import dmi_loss, joint_distribution
from lightning_perturb.functional.dimensionality import local_dimensionality, paced_trust, turns
from lightning_perturb.functional.distribution_balanced import (
    distribution_balanced_loss,
    negative_tolerant_bias,
    rebalanced_weights,
)
from lightning_perturb.functional.disturb_label import disturb_label
from lightning_perturb.functional.dlb import dlb_loss
from lightning_perturb.functional.domain_risks import domain_balance, domain_means
from lightning_perturb.functional.focal import binary_focal_entries, binary_focal_loss, focal_loss
from lightning_perturb.functional.forward_correction import (
    estimate_transition,
    forward_corrected_loss,
    gold_transition,
)
from lightning_perturb.functional.gce import gce_loss, truncated_gce_keep, truncated_gce_loss
from lightning_perturb.functional.group_dro import (
    balanced_group_weights,
    generalization_adjustment,
    group_dro_step,
    group_risks,
)
from lightning_perturb.functional.iada import (
    adversarial_logits,
    fairness_term,
    feature_gradient,
    generalization_term,
    iada_logits,
    regularization_term,
    robustness_term,
)
from lightning_perturb.functional.information_bottleneck import feature_variance
from lightning_perturb.functional.inner_steps import (
    bounded_reweighting,
    bounded_step,
    priced_label,
    priced_loss_change,
    priced_step,
    project_simplex,
    shared_slack,
)
from lightning_perturb.functional.irm import irm_penalty, irm_slopes
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
from lightning_perturb.functional.knowledge_distillation import balanced_teacher_logits, knowledge_distillation_loss
from lightning_perturb.functional.label_perturbation import perturb_label
from lightning_perturb.functional.label_smoothing import smooth
from lightning_perturb.functional.lade import lade_regularization
from lightning_perturb.functional.large_margin import large_margin_logits
from lightning_perturb.functional.ldam import ldam_logits, ldam_margins
from lightning_perturb.functional.logit_adjustment import log_prior, logit_adjustment
from lightning_perturb.functional.logit_compensation import logit_compensation_loss
from lightning_perturb.functional.logpert import logpert, logpert_loss, logpert_step
from lightning_perturb.functional.loss_variation import (
    class_loss_variation,
    loss_variation_sums,
    relative_loss_variation,
)
from lightning_perturb.functional.lpl import (
    class_confidence,
    confidence_bounds,
    confidence_split,
    confidence_threshold,
    frequency_bounds,
    frequency_rank,
    frequency_split,
    lpl,
    lpl_steps,
    mean_confidence_split,
)
from lightning_perturb.functional.lpl_corollaries import imbalance_gamma_limit, variance_imbalance_gamma_range
from lightning_perturb.functional.lpl_simulation import simulated_errors
from lightning_perturb.functional.lpl_theory import imbalance_errors, mixed_imbalance_errors, variance_imbalance_errors
from lightning_perturb.functional.mbls import mbls_penalty
from lightning_perturb.functional.mix_bootstrapping import mix_bootstrapping_target
from lightning_perturb.functional.mixpert import hard_by_share, hard_by_value, positive_perturbation, sample_bounds
from lightning_perturb.functional.mixup import mix, symmetric_beta
from lightning_perturb.functional.multi_label_lpl import multi_label_lpl
from lightning_perturb.functional.noise_tolerance import (
    class_conditional_noise_bound,
    gce_spread,
    js_spread,
    loss_sum_range,
    noise_gaps,
    oracle_class_conditional_noise_bound,
    oracle_symmetric_noise_bounds,
    pair_transition,
    polysoft_spread,
    rce_spread,
    symmetric_noise_bounds,
    symmetric_transition,
)
from lightning_perturb.functional.online_label_smoothing import accumulate, class_average, online_label_smoothing_target
from lightning_perturb.functional.pgd import fgsm, l2_start, pgd, uniform_start
from lightning_perturb.functional.polyloss import poly_loss
from lightning_perturb.functional.polysoft import polysoft_loss, polysoft_weight
from lightning_perturb.functional.proselflc import proselflc_target, trust
from lightning_perturb.functional.risda import (
    class_sums,
    confusion_counts,
    confusion_rates,
    reasoned_covariance,
    risda_mean_term,
)
from lightning_perturb.functional.robust_clustering import (
    outlier_perturbation,
    robust_clustering,
    robust_clustering_cost,
)
from lightning_perturb.functional.selective_mixup import (
    choose_partners,
    other_domain,
    same_domain_other_label,
    same_label_other_domain,
)
from lightning_perturb.functional.self_paced import (
    linear_spl_weights,
    logarithmic_spl_weights,
    loss_ratio,
    mixture_spl_weights,
    spl_weights,
)
from lightning_perturb.functional.sl import mae_loss, rce_loss, sl_loss
from lightning_perturb.functional.small_loss import keep_rate, small_loss, symmetric_divergence
from lightning_perturb.functional.strategies import (
    all_adversarial,
    all_anti_adversarial,
    doubted_anti_adversarial,
    tail_adversarial,
)
from lightning_perturb.functional.svm_slack import hinge_loss, slack, svm_slack
from lightning_perturb.functional.tde import drift_cosines, multi_head_logits, tde_logits
from lightning_perturb.functional.vrex import vrex_penalty

__all__ = [
    "BatchStatistics",
    "ClassCovariance",
    "Observation",
    "accumulate",
    "adjust",
    "adversarial_label_smoothing_target",
    "adversarial_logits",
    "all_adversarial",
    "all_anti_adversarial",
    "apgd",
    "apgd_checkpoints",
    "arcface_logits",
    "average_class_loss",
    "balanced_group_weights",
    "balanced_teacher_logits",
    "batch_statistics",
    "binary_cross_entropy",
    "binary_cross_entropy_entries",
    "binary_focal_entries",
    "binary_focal_loss",
    "bounded_reweighting",
    "bounded_step",
    "center_loss",
    "choose_partners",
    "class_average",
    "class_balanced_focal_loss",
    "class_conditional_noise_bound",
    "class_confidence",
    "class_covariance_update",
    "class_distance",
    "class_frequency",
    "class_loss_variation",
    "class_sums",
    "classifier_cosine",
    "classifier_norm",
    "confidence_bounds",
    "confidence_margin",
    "confidence_penalty",
    "confidence_split",
    "confidence_threshold",
    "confusion_counts",
    "confusion_rates",
    "coral_penalty",
    "correctness",
    "cosine_logits",
    "cross_entropy",
    "distribution_balanced_loss",
    "disturb_label",
    "dlb_loss",
    "dmi_loss",
    "domain_balance",
    "domain_means",
    "doubted_anti_adversarial",
    "drift_cosines",
    "effective_number_weights",
    "estimate_transition",
    "fairness_term",
    "feature_gradient",
    "feature_gradient_norm",
    "feature_variance",
    "fgsm",
    "focal_loss",
    "forward_corrected_loss",
    "frequency_bounds",
    "frequency_rank",
    "frequency_split",
    "gce_hyperparameters",
    "gce_loss",
    "gce_spread",
    "generalization_adjustment",
    "generalization_term",
    "gold_transition",
    "group_dro_step",
    "group_risks",
    "hard_bootstrapping_target",
    "hard_by_share",
    "hard_by_value",
    "hinge_loss",
    "iada_logits",
    "imbalance_errors",
    "imbalance_gamma_limit",
    "inverse_frequency_weights",
    "irm_penalty",
    "irm_slopes",
    "isda_logits",
    "isda_perturbation",
    "isda_term",
    "joint_distribution",
    "js_hyperparameters",
    "js_loss",
    "js_spread",
    "keep_rate",
    "knowledge_distillation_loss",
    "l2_start",
    "label_probability",
    "lade_regularization",
    "large_margin_logits",
    "ldam_logits",
    "ldam_margins",
    "learning_history",
    "linear_spl_weights",
    "local_dimensionality",
    "log_prior",
    "logarithmic_spl_weights",
    "logit_adjustment",
    "logit_compensation_loss",
    "logit_gradient",
    "logit_gradient_norm",
    "logit_margin",
    "logpert",
    "logpert_loss",
    "logpert_step",
    "loss_ratio",
    "loss_sum_range",
    "loss_variation_sums",
    "lpl",
    "lpl_steps",
    "mae_loss",
    "margin",
    "mbls_penalty",
    "mean_confidence_split",
    "mix",
    "mix_bootstrapping_target",
    "mixed_imbalance_errors",
    "mixture_spl_weights",
    "multi_head_logits",
    "multi_label_lpl",
    "negative_tolerant_bias",
    "noise_gaps",
    "normalized_cross_entropy",
    "normalized_focal_loss",
    "one_hot",
    "online_label_smoothing_target",
    "oracle_class_conditional_noise_bound",
    "oracle_symmetric_noise_bounds",
    "other_domain",
    "outlier_perturbation",
    "paced_trust",
    "pair_transition",
    "perturb_label",
    "pgd",
    "poly_loss",
    "polysoft_hyperparameters",
    "polysoft_loss",
    "polysoft_spread",
    "polysoft_weight",
    "pool",
    "positive_perturbation",
    "priced_label",
    "priced_loss_change",
    "priced_step",
    "probability_margin",
    "project_simplex",
    "proselflc_target",
    "rce_loss",
    "rce_spread",
    "reasoned_covariance",
    "rebalanced_weights",
    "regularization_term",
    "relative_entropy",
    "relative_loss",
    "relative_loss_variation",
    "risda_mean_term",
    "robust_clustering",
    "robust_clustering_cost",
    "robustness_term",
    "same_domain_other_label",
    "same_label_other_domain",
    "sample_bounds",
    "sample_loss",
    "scaled_logits",
    "shared_slack",
    "simulated_errors",
    "sl_hyperparameters",
    "sl_loss",
    "slack",
    "small_loss",
    "smooth",
    "soft_bootstrapping_target",
    "spl_weights",
    "standardize",
    "svm_slack",
    "symmetric_beta",
    "symmetric_divergence",
    "symmetric_noise_bounds",
    "symmetric_transition",
    "tail_adversarial",
    "tau_normalized_logits",
    "tau_normalized_weight",
    "tde_logits",
    "training_characteristics",
    "truncated_gce_keep",
    "truncated_gce_loss",
    "trust",
    "turns",
    "uniform_start",
    "update_centers",
    "update_class_average",
    "update_moments",
    "variance_imbalance_errors",
    "variance_imbalance_gamma_range",
    "vrex_penalty",
]
