"""The biased toy, and what perturbations do to the classifier that learns from it."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.core import PerturbationModule
from lightning_perturb.data import TwoGaussians
from lightning_perturb.figures.boundary import Classifier, decision_boundaries
from lightning_perturb.figures.papers._training import quiet, train
from lightning_perturb.methods import LPL, CrossEntropy, LabelSmoothing, LogPert, MixPert, Mixup, PGDTraining
from lightning_perturb.nets import MLP

Make = Callable[..., PerturbationModule]

_SAMPLES = 620
# of all samples at once and until the weights stand: the noise of small batches moves the boundary as far as methods do
_STEPS = 80


def draw() -> Figure:
    """Biased classes in the plane and the boundaries that methods draw between them [tax 22, Fig. 3]."""
    biased = TwoGaussians(batch_size=_SAMPLES, samples=_SAMPLES)
    learnt: list[tuple[str, Make, TwoGaussians]] = [
        ("cross-entropy", CrossEntropy, biased),
        ("14/30 of C1 and C4 moved", CrossEntropy, TwoGaussians(batch_size=_SAMPLES, samples=_SAMPLES, moved=14 / 30)),
        ("label smoothing", LabelSmoothing, biased),
        ("LogPert", LogPert, biased),
        ("MixPert", MixPert, biased),
        ("LPL", partial(LPL, eps=0.4, delta_eps=0.1, alpha=0.01), biased),
        ("PGD", partial(PGDTraining, eps=0.3, step_size=0.1, eps_space="normalized", clip=False), biased),
        ("Mixup", Mixup, biased),
    ]
    with quiet():
        classifiers = [_learn(*each) for each in learnt]
    return decision_boundaries(classifiers, biased.class_names, _best)


def _best(x: Tensor) -> Tensor:
    """With both parts of each class equally frequent and all equally wide the classes mirror each other."""
    along = x.sum(dim=1)
    return torch.stack([-along, along], dim=1)


def _learn(name: str, make: Make, data: TwoGaussians) -> Classifier:
    torch.manual_seed(0)
    # weight decay: without it the few samples of C3 would decide in the end, whatever their share
    optimizer = partial(torch.optim.SGD, lr=1.0, momentum=0.5, weight_decay=0.01)
    method = make(net=MLP(2, 2, hidden=()), num_classes=2, optimizer=optimizer)
    train(method, data, _STEPS)
    method.eval()
    x, y = data.raw_inputs(data.train_index), data.given_labels[data.train_index]
    truth = data.read("test")
    assert truth is not None
    with torch.no_grad():
        wrong = method(truth[0]).argmax(dim=1).numpy() != truth[1]
    of_c3 = np.mean(wrong[data.parts("test") == 3])
    return Classifier(f"{name}\nerror {100 * wrong.mean():.2g}%, of C3 {100 * of_c3:.2g}%", x.numpy(), y, method)
