"""Methods that are pure cells of the taxonomy train exactly as their lattice forms."""

import pytest
import torch
from testkit.cases import Teacher
from testkit.training import Recipe, fit

from lightning_perturb import methods
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.data import Exponential
from lightning_perturb.lattice import (
    Adversarial,
    ClassAverage,
    ClassWeight,
    ConfidenceBounds,
    ConfidentClasses,
    Covariance,
    FrequencyBounds,
    FrequentClasses,
    HardestSamples,
    Hyperparameter,
    LargeLosses,
    Learnt,
    LogPrior,
    LowEntropy,
    Meta,
    OwnLogit,
    PacedLosses,
    Partner,
    PartnerLabel,
    Poly,
    Predicted,
    Prediction,
    Prior,
    Redrawn,
    Regularization,
    Relative,
    Taught,
    Uniform,
)


class SlotDraws(methods.DisturbLabel):
    """Draws what the first cell of a list does: cells have streams of their own."""

    def uniform(self, stream, batch, *shape):
        return super().uniform(f"cell_0 {stream}", batch, *shape)


ATTACK = {"eps": 0.1, "step_size": 0.03, "steps": 3}
ETA = {"norm": "none", "steps": 1}

# name: method, its options, the cells
FORMS = {
    "label smoothing": (
        methods.LabelSmoothing, {"eps": 0.2},
        [Prior("label", "sample", "mixed", pattern=Uniform(), strength=0.2)],
    ),
    "soft bootstrapping": (
        # the paper calls it positive; where p_y is large the loss rises (entropy above cross-entropy)
        methods.SoftBootstrapping, {"beta": 0.7},
        [Prior("label", "sample", "mixed", pattern=Prediction(), strength=0.3)],
    ),
    "hard bootstrapping": (
        methods.HardBootstrapping, {"beta": 0.7},
        [Prior("label", "sample", "positive", pattern=Predicted(), strength=0.3)],
    ),
    "online label smoothing": (
        methods.OnlineLabelSmoothing, {"alpha": 0.4},
        [Prior("label", "category", "mixed", pattern=ClassAverage(), strength=0.4, power=0)],
    ),
    "mix bootstrapping, two levels": (
        # y + a (b s + (1 - b) p - y) by turns: first towards s, then towards p
        methods.MixBootstrapping, {"alpha": 0.5, "beta": 0.6},
        [
            Prior("label", "category", "mixed", pattern=ClassAverage(), strength=0.3 / 0.8, power=0),
            Prior("label", "sample", "mixed", pattern=Prediction(), strength=0.2),
        ],
    ),
    "adversarial label smoothing": (
        methods.AdversarialLabelSmoothing, {"lam": 0.15}, [Adversarial("label", "sample", "negative", eps=0.15)],
    ),
    "PolyLoss": (
        methods.PolyLoss, {"epsilons": (0.8,)}, [Prior("loss", "sample", "negative", pattern=Poly(), strength=0.8)],
    ),
    "PolyLoss below 0": (
        methods.PolyLoss, {"epsilons": (-0.8,)}, [Prior("loss", "sample", "positive", strength=0.8)],
    ),
    "LogPert": (methods.LogPert, {"lam": 0.2}, [Regularization("logit", "sample", "positive", lam=0.2)]),
    "logit adjustment": (
        methods.LogitAdjustment, {"tau": 1.5}, [Prior("logit", "corpus", "mixed", pattern=LogPrior(), strength=1.5)],
    ),
    "PGD training": (methods.PGDTraining, ATTACK, [Adversarial("feature", "sample", "negative", **ATTACK)]),
    "PGD training without start and pixels": (
        methods.PGDTraining, {**ATTACK, "random_start": False, "eps_space": "normalized", "clip": False},
        [Adversarial("feature", "sample", random_start=False, space=InputSpace("input", clip=False), **ATTACK)],
    ),
    "MixPert, positive alone": (
        methods.MixPert, {"eta": 3.0, "share": 0.25},
        [Adversarial("logit", "sample", "positive", step_size=3.0, split=HardestSamples(0.25), **ETA)],
    ),
    "MixPert by value": (
        methods.MixPert, {"eta": 3.0, "threshold": "value", "tau": 2.2},
        [Adversarial("logit", "sample", "positive", step_size=3.0, split=LargeLosses(2.2), **ETA)],
    ),
    "MixPert, two targets and directions": (
        methods.MixPert, {"eta": 3.0, "share": 0.25, "eps2": 0.1, "step_size": 0.03, "steps": 2},
        [
            Adversarial("feature", "sample", "negative", eps=0.1, step_size=0.03, steps=2, split=HardestSamples(0.25)),
            Adversarial("logit", "sample", "positive", step_size=3.0, split=HardestSamples(0.25), **ETA),
        ],
    ),
    "LPL with fixed bounds": (
        methods.LPL, {"eps": 0.4, "delta_eps": 0.0, "alpha": 0.1},
        [Adversarial("logit", "category", "mixed", norm="l2", eps=0.4, step_size=0.1, steps=4)],
    ),
    "LPL, all negative, plain gradient": (
        methods.LPL, {"eps": 0.4, "delta_eps": 0.0, "alpha": 0.1, "grad_norm": "none", "threshold": 2.0},
        [Adversarial("logit", "category", "negative", norm="none", step_size=0.1, steps=4)],
    ),
    "LA+LPL, two levels": (
        methods.LogitAdjustedLPL, {"eps": 0.4, "delta_eps": 0.0, "alpha": 0.1, "tau": 1.0},
        [
            Prior("logit", "corpus", "mixed", strength=1.0),
            Adversarial(
                "logit", "category", "mixed", norm="l2", eps=0.4, step_size=0.1, steps=4, split=ConfidentClasses()
            ),
        ],
    ),
    "Mixup, two targets": (
        methods.Mixup, {"alpha": 0.7},
        [
            Prior("feature", "sample", "mixed", pattern=Partner(0.7), strength=1.0),
            Prior("label", "sample", "mixed", pattern=PartnerLabel(0.7), strength=1.0),
        ],
    ),
    "PolyLoss at the published coefficient": (
        methods.PolyLoss, {}, [Prior("loss", "sample", "negative", pattern=Poly(), strength=2.0)],
    ),
    "LPL with varied bounds": (
        methods.LPL, {"eps": 0.1, "delta_eps": 0.8, "alpha": 0.05},
        [Adversarial("logit", "category", "mixed", norm="l2", eps=0.1, step_size=0.05, bounds=ConfidenceBounds(0.8))],
    ),
    "LPL of long tails": (
        methods.LPL, {"split": "frequency", "head": 0.4, "head_scale": 0.6},
        [
            Adversarial(
                "logit", "category", "mixed", norm="l2", eps=0.0, step_size=0.15, split=FrequentClasses(0.4),
                bounds=FrequencyBounds(1.5, share=0.4, head_scale=0.6),
            )
        ],
    ),
    "ISDA": (
        methods.ISDA, {"lam": 2.0},
        [Prior("logit", "category", "negative", pattern=Covariance(), strength=2.0, power=0)],
    ),
    "ISDA without a ramp, variances": (
        methods.ISDA, {"ramp": "constant", "covariance": "diagonal"},
        [
            Prior(
                "logit", "category", "negative", strength=0.5, power=0, pattern=Covariance(ramp=False, diagonal=True)
            )
        ],
    ),
    "ISDA+LPL, two inferences": (
        methods.ISDALPL, {"lam": 2.0, "eps": 0.4, "delta_eps": 0.0, "alpha": 0.1},
        [
            Prior("logit", "category", "negative", pattern=Covariance(), strength=2.0, power=0),
            Adversarial("logit", "category", "mixed", norm="l2", eps=0.4, step_size=0.1, steps=4),
        ],
    ),
    "knowledge distillation": (
        methods.KnowledgeDistillation, {"teacher": Teacher(), "lam": 0.7, "temperature": 3.0},
        [Prior("loss", "sample", "negative", strength=0.7, pattern=Taught(Teacher(), temperature=3.0))],
    ),
    "confidence penalty": (
        methods.ConfidencePenalty, {"beta": 0.4},
        [Hyperparameter("loss", "sample", "negative", value=0.4, power=0, pattern=LowEntropy())],
    ),
    "confidence penalty below a threshold": (
        methods.ConfidencePenalty, {"beta": 1.0, "tau": 2.2},
        [Hyperparameter("loss", "sample", "negative", value=1.0, power=0, pattern=LowEntropy(2.2))],
    ),
    "self-paced": (
        methods.SelfPacedLogPert, {"tau_first": 2.2, "tau_last": 2.6},
        [Adversarial("logit", "sample", "positive", step_size=1000.0, split=PacedLosses(2.2, 2.6), **ETA)],
    ),
    "self-paced, by default": (
        methods.SelfPacedLogPert, {"eta": 30.0, "tau_epochs": 4},
        [Adversarial("logit", "sample", "positive", step_size=30.0, split=PacedLosses(epochs=4), **ETA)],
    ),
    "focal": (
        methods.Focal, {}, [Hyperparameter("loss", "corpus", "positive", value=1.0, pattern=Learnt())],
    ),
    "re-weighting": (
        methods.ReWeighting, {}, [Prior("loss", "category", "mixed", strength=1.0, power=0, pattern=ClassWeight())],
    ),
    "class-balanced": (
        methods.ClassBalanced, {"beta": 0.99},
        [Prior("loss", "category", "mixed", strength=1.0, power=0, pattern=ClassWeight(0.99))],
    ),
    "DisturbLabel": (
        SlotDraws, {"alpha": 0.3},
        [Prior("label", "sample", "mixed", strength=1.0, pattern=Redrawn(0.3))],
    ),
    "no cell": (methods.CrossEntropy, {}, []),
}  # fmt: skip


def weights(method, options, **changes):
    recipe = Recipe(
        method, {"seed": 5, **options}, trainer={"precision": "64-true", "max_epochs": 2}, net="conv-norm-dropout",
        data={"samples": 130, "imbalance": Exponential(4.0)},
    ).but(**changes)  # fmt: skip
    module = fit(recipe).lightning_module
    return torch.cat([p.detach().flatten() for p in module.net.state_dict().values()]), module


@pytest.mark.parametrize("name", FORMS)
def test_a_training_is_the_same(name):
    method, options, cells = FORMS[name]
    expected, named = weights(method, options)
    found, lattice = weights(methods.Perturb, {"perturbations": cells})
    # the named methods keep these constants in single precision
    single = ("label smoothing", "logit adjustment", "LA+LPL, two levels", "re-weighting", "class-balanced")
    tolerance = 1e-7 if name in single or "ISDA" in name else 1e-9
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    if not cells:
        return
    plain, _ = weights(methods.CrossEntropy, {})
    assert not torch.allclose(found, plain, atol=1e-4)
    stated, own = named.coordinates, lattice.coordinates
    assert own.target == tuple(t for t in own.target if t in stated.target)
    assert set(own.inference) <= set(stated.inference)
    # a list of cells may be at fewer places than what its method can do
    assert set(own.granularity) <= set(stated.granularity)


META = {
    "Meta-Weight-Net": (
        methods.MetaWeightNet, {"hidden": 7}, [Meta("loss", "sample", "positive", hidden=7, pattern=Relative())],
    ),
    "meta logit adjustment": (
        methods.MetaLogitAdjustment, {"tau": 1.0}, [Meta("logit", "category", "mixed", start=1.0, pattern=LogPrior())],
    ),
}  # fmt: skip


def fast(params):
    return torch.optim.Adam(params, lr=0.05)


@pytest.mark.parametrize("name", META)
def test_a_meta_training_is_the_same(name):
    method, options, cells = META[name]
    expected, named = weights(method, {"meta_optimizer": fast, **options})
    found, lattice = weights(methods.MetaPerturb, {"meta_optimizer": fast, "perturbations": cells})
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    for one, other in zip(named.theta(), lattice.theta(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert {each.engine for each in lattice._bilevels.values()} <= {"auto", "forward"}, "θ in the loss alone"


def test_ldams_margins_without_its_cosine():
    # LDAM's largest margin is the rarest class's: m_c = m (n_min / n_c)^(1/4) [tax Table 1]
    from lightning_perturb.functional import ldam_margins

    cell = Prior("logit", "category", "negative", strength=0.5, pattern=OwnLogit())
    counts = torch.tensor([500, 60, 7])

    class Counted:
        class_counts, num_classes = counts, 3

    class Place:
        module = Counted()

    class Three:
        ids, place = torch.arange(3), torch.arange(3)

    torch.testing.assert_close(cell.amount(Place(), Three()).float(), ldam_margins(counts, 0.5).float())
