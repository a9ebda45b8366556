"""Meta-IADA: IADA whose strategy is learned on clean samples [iada Algorithm 1]."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.covariances import MetaCovarianceModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.named import named_function
from lightning_perturb.functional import standardize, training_characteristics, update_moments
from lightning_perturb.functional.characteristics import CHARACTERISTICS
from lightning_perturb.methods.iada import IADA
from lightning_perturb.nets import MetaMLP

_MOMENTS = ("moment_steps", "moment_mean", "moment_variance")


class MetaIADA(MetaCovarianceModule, IADA):
    """IADA with ε of each sample from a learned perturbation network, and learned covariances [iada 7-10].

    After ``warmup_epochs`` of cross-entropy (T1, which the paper does not tell; its figures show the last 40 of 200
    epochs): ε = tanh of a two-layer network of the sample's training characteristics. One virtual step of the
    classifier serves both the network's step and that of the covariances, which holds for one batch as in MetaSAug. The
    characteristics, standardised by their running moments, are constants in the virtual and the real step.

    Where ε is below 0 the loss falls without end as the classifier's weight grows, and fast training without weight
    decay runs away: keep the paper's 5e-4.

    The authors' list of fifteen characteristics is unpublished; they name loss and margin, and three aspects: learning
    difficulty, class distribution, noise level. The fifteen of
    :mod:`lightning_perturb.functional.characteristics` are ours. One is the sample's history, which counts as 1/C where
    batches carry no sample index. The meta set is the data module's, balanced over classes, or over groups with
    its ``meta_by``.

    Args:
        characteristics: What the perturbation network knows of a sample: names of functions of
            :mod:`lightning_perturb.functional.characteristics`, and import paths of functions of your own from an
            :class:`~lightning_perturb.functional.Observation` to one number a sample. None takes all fifteen.
        hidden: Width of the perturbation network; not in the paper.
        eps_scale: Factor of ε; the paper's is 1, for the 64 features of a ResNet-32. Lower it where there are more.
        **kwargs: Arguments of :class:`~lightning_perturb.core.covariances.MetaCovarianceModule`, and of
            :class:`~lightning_perturb.methods.IADA` but ``strategy``.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "meta", ("sample", "category"))
    paper = "iada"

    perturbation_net: MetaMLP
    moment_steps: Tensor
    moment_mean: Tensor
    moment_variance: Tensor

    def __init__(
        self,
        *args: Any,
        characteristics: list[str] | None = None,
        hidden: int = 100,
        eps_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, strategy=None, eps_scale=eps_scale, **kwargs)
        check_positive("hidden", hidden)
        names = [f.__name__ for f in CHARACTERISTICS] if characteristics is None else characteristics
        if not names or len(set(names)) != len(names):
            raise ValueError(f"characteristics={names} is empty or names one twice. Name at least one, each once.")
        self.characteristics = [named_function("characteristics", name, CHARACTERISTICS) for name in names]
        self.add_state("moment_steps", torch.zeros(()))
        self.add_state("moment_mean", torch.zeros(len(names)))
        self.add_state("moment_variance", torch.zeros(len(names)))
        if self.robustness:
            self.add_meta("perturbation_net", _near_zero(MetaMLP(len(names), hidden)))

    @property
    def learns_covariances(self) -> bool:
        """As in the base, where the covariances are in the loss."""
        return self.generalization and super().learns_covariances

    def epsilon(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """tanh of the perturbation network ``[B]``, a constant in the outputs."""
        values = self.standardized(outputs, batch)
        raw: Tensor = self.perturbation_net(values.to(self.dtype))[:, 0]
        return self.eps_scale * torch.tanh(raw.to(values.dtype))

    @torch.no_grad()
    def standardized(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The characteristics ``[B, K]`` in running standard deviations from their running mean, this batch in both."""
        values = training_characteristics(self.observe(outputs, batch), self.characteristics)
        (everyone,) = gather_rows(values)
        moments = update_moments(self.moment_steps, self.moment_mean, self.moment_variance, everyone)
        batch.extra.update(zip(_MOMENTS, moments, strict=True))
        _, mean, variance = moments
        return standardize(values, mean, variance)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """As in IADA, and the running moments of the characteristics."""
        super().update_state(outputs, batch)
        for name in _MOMENTS:
            if name in batch.extra:
                getattr(self, name).copy_(batch.extra[name])


def _near_zero(net: MetaMLP) -> MetaMLP:
    """Lets training start without perturbation."""
    last = net.layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(0.01)
        last.bias.zero_()
    return net
