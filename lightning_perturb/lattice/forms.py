"""Which named methods are lists of cells, and why the others are not."""

from __future__ import annotations

#: a method as cells of ``Perturb`` (or ``MetaPerturb``), which train as it does
FORMS: dict[str, str] = {
    "AdversarialLabelSmoothing": "Adversarial(label, sample, negative)",
    "ClassBalanced": "Prior(loss, category, mixed, strength=1, power=0, pattern=ClassWeight(beta))",
    "ConfidencePenalty": "Hyperparameter(loss, sample, negative, power=0, pattern=LowEntropy)",
    "CrossEntropy": "no cell",
    "DisturbLabel": "Prior(label, sample, mixed, strength=1, pattern=Redrawn)",
    "Focal": "Hyperparameter(loss, corpus, positive, value=1, pattern=Learnt)",
    "HardBootstrapping": "Prior(label, sample, positive, pattern=Predicted)",
    "ISDA": "Prior(logit, category, negative, power=0, pattern=Covariance)",
    "ISDALPL": "the cell of ISDA, then that of LPL",
    "KnowledgeDistillation": "Prior(loss, sample, negative, pattern=Taught)",
    "LPL": "Adversarial(logit, category, mixed, norm=l2, split=ConfidentClasses, bounds=ConfidenceBounds); of long "
    "tails FrequentClasses and FrequencyBounds",
    "LabelSmoothing": "Prior(label, sample, mixed, pattern=Uniform)",
    "LogPert": "Regularization(logit, sample, positive, penalty=l1)",
    "LogitAdjustedLPL": "the cell of LogitAdjustment, then that of LPL",
    "LogitAdjustment": "Prior(logit, corpus, mixed, pattern=LogPrior)",
    "MetaLogitAdjustment": "Meta(logit, category, mixed, pattern=LogPrior)",
    "MetaWeightNet": "Meta(loss, sample, positive, pattern=Relative)",
    "MixBootstrapping": "Prior(label, category, mixed, power=0, pattern=ClassAverage) and "
    "Prior(label, sample, mixed, pattern=Prediction)",
    "MixPert": "Adversarial(feature, sample, negative, split=HardestSamples) and "
    "Adversarial(logit, sample, positive, norm=none, steps=1, split=HardestSamples)",
    "Mixup": "Prior(feature, sample, mixed, strength=1, pattern=Partner) and "
    "Prior(label, sample, mixed, strength=1, pattern=PartnerLabel)",
    "OnlineLabelSmoothing": "Prior(label, category, mixed, power=0, pattern=ClassAverage)",
    "PGDTraining": "Adversarial(feature, sample, negative)",
    "PolyLoss": "Prior(loss, sample, negative, pattern=Poly); with several coefficients it is no cell",
    "ReWeighting": "Prior(loss, category, mixed, strength=1, power=0, pattern=ClassWeight)",
    "SelfPacedLogPert": "Adversarial(logit, sample, positive, norm=none, steps=1, split=PacedLosses)",
    "SoftBootstrapping": "Prior(label, sample, mixed, pattern=Prediction)",
}

_ANOTHER_LOSS = "another loss in the place of cross-entropy, not a term added to it"
_ANGLE = "its margin is added to an angle, and its logits are made otherwise in evaluation, too"
_BINARY = "of several labels a sample: cells perturb one distribution over the classes"

#: why a method is no list of cells
NO_FORM: dict[str, str] = {
    "ActivePassiveLoss": _ANOTHER_LOSS,
    "ArcFace": _ANGLE,
    "BalancedKnowledgeDistillation": "as KnowledgeDistillation, with a prediction that is weighted by class",
    "BinaryCrossEntropy": _BINARY,
    "CategoryArcFace": _ANGLE,
    "CenterLoss": "its centres are learned by a rule of their own",
    "ClassBalancedFineTuning": "two phases of training",
    "ClassifierRetraining": "two trainings, the second of which knows the classifier alone",
    "CoTeaching": "which samples a network leaves out is another network's choice",
    "D2L": "how far its labels move follows from all features, and with it the network goes back",
    "DLB": "its teacher is the network itself, one batch before, on the same samples",
    "DeconfoundTDE": _ANGLE,
    "DMI": "its loss is one number of the batch: samples have none of their own",
    "ForwardCorrection": "two phases of training; the second perturbs probabilities, not logits, by a matrix",
    "GCE": _ANOTHER_LOSS,
    "GoldLossCorrection": "as ForwardCorrection, with clean samples beside the noisy ones",
    "IADA": "direction and size are one function of sample and class together",
    "JS": _ANOTHER_LOSS,
    "JoCoR": "its two networks perturb each other",
    "L2RW": "its weights live for one batch",
    "LADE": "its regularization is one number of the batch",
    "LC": _BINARY,
    "LDAM": "its margins are Prior(logit, category, negative, pattern=OwnLogit), but its logits are cosines",
    "LDAMDRW": "as LDAM, and the weights of ClassBalanced come late in training",
    "LargeMarginSoftmax": _ANGLE,
    "LearnableWeightScaling": "two trainings, the second of which knows one scale a class alone",
    "MAE": _ANOTHER_LOSS,
    "MLC": "its labels are those of a network of its own, and half of the clean samples are trained on",
    "MbLS": "its penalty grows with the distance of all logits from the largest",
    "MetaClassWeight": "a part of its weights lives for one batch",
    "MetaIADA": "as IADA, with three learned parts that share a step",
    "MetaMixPert": "one learned weight stands at two targets: it mixes the losses of two forward passes",
    "MetaMixUp": "its weights live for one batch, and are one for input and label",
    "MetaSAug": "its covariances are corrected for one batch, then forgotten",
    "NARLAdjuster": _ANOTHER_LOSS,
    "NARLMultiTask": _ANOTHER_LOSS,
    "OracleRobustLoss": _ANOTHER_LOSS,
    "PolySoft": _ANOTHER_LOSS,
    "PostHocLogitAdjustment": "it perturbs predictions, not training",
    "ProSelfLC": "how far a label moves is one function of epoch and entropy",
    "RCE": _ANOTHER_LOSS,
    "RISDA": "what moves a class is taken over from the classes that it is mistaken for",
    "ReSampling": "it perturbs which samples come, not what is trained on",
    "SL": _ANOTHER_LOSS,
    "TauNormalization": "it perturbs predictions, not training",
    "TransferredRobustLoss": _ANOTHER_LOSS,
    "TruncatedGCE": _ANOTHER_LOSS,
}
