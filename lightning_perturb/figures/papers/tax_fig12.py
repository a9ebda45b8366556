"""MixPert's positive part, whose losses become those of self-paced learning where η is large."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.core import PerturbationModule
from lightning_perturb.data import Digits, Symmetric
from lightning_perturb.figures.papers._training import classifier, quiet, train
from lightning_perturb.figures.self_paced import loss_ratio_curve
from lightning_perturb.methods import CrossEntropy

# share of the samples that are perturbed: a little above that of the wrong labels
_SHARE = 0.45


def draw() -> Figure:
    """Perturbed over original loss where η is twice the largest norm of the logits, on noisy digits [tax Fig. 12]."""
    with quiet():
        data = Digits(seed=0, label_noise=Symmetric(0.4))
        method = classifier(CrossEntropy, data)
        # before the wrong labels are learnt
        train(method, data, epochs=5)
        logits, given = _predicted(method, data)
    losses = torch.nn.functional.cross_entropy(logits, given, reduction="none")
    eta = 2 * float(logits.norm(dim=1).max())
    return loss_ratio_curve(logits, given, eta, float(losses.quantile(1 - _SHARE)))


@torch.no_grad()
def _predicted(method: PerturbationModule, data: Digits) -> tuple[Tensor, Tensor]:
    batches = list(data.score_dataloader())
    method.eval()
    return torch.cat([method(data.normalize(b.x)) for b in batches]), torch.cat([b.y for b in batches])
