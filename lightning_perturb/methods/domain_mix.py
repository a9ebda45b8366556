"""Mixup with partners that domains and labels decide on: between domains, and LISA."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_choice, check_rate, check_used
from lightning_perturb.core import Batch
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.domains import DomainModule
from lightning_perturb.core.features import FeatureReader
from lightning_perturb.core.inputs import float_input
from lightning_perturb.core.partners import allowed_partners
from lightning_perturb.functional import mix, other_domain, same_domain_other_label, same_label_other_domain
from lightning_perturb.methods.mixup import Mixup


class DomainMix(Mixup, DomainModule):
    """Mixup of samples of different domains, the mixing part of domain mixup (Xu et al., 2020).

    Each sample's partner is any of the batch, over all devices, in another domain; a sample without one stays as it is.
    (The paper's adversarial part, for domains without labels, has no place here.)

    Args:
        alpha: α of the weights' Beta(α, α), 0.2 as in DomainBed's mixup between domains.
        weights: One w for the ``batch`` or for each ``sample``.
        mix_at: ``input``, or ``features``: what enters the classifier, for inputs that cannot be mixed (text).
        classifier: Dotted name of the layer, an ``nn.Linear``, that gives the network's logits, for
            ``mix_at="features"``; None takes the ``nn.Linear`` that was registered last.
        **kwargs: Arguments of :class:`~lightning_perturb.core.domains.DomainModule`.
    """

    def __init__(
        self,
        *args: Any,
        alpha: float = 0.2,
        weights: Literal["batch", "sample"] = "sample",
        mix_at: Literal["input", "features"] = "input",
        classifier: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, alpha=alpha, weights=weights, **kwargs)
        check_choice("mix_at", mix_at, ("input", "features"))
        check_used("classifier", classifier, None, "mix_at", mix_at, ("features",))
        self.mix_at = mix_at
        self._features = FeatureReader(type(self).__name__, self.net, classifier) if mix_at == "features" else None

    def pairing(self, batch: Batch) -> tuple[Tensor, ...]:
        """Given classes and domains."""
        return self.given_class(batch), self.domains(batch)

    def allowed(self, label: Tensor, domain: Tensor) -> Tensor:
        """Who may be mixed with whom, ``[N, N]`` in bool.

        Args:
            label: Given classes ``[N]``.
            domain: Domains ``[N]``.
        """
        return other_domain(domain)

    def choose(self, keys: Tensor, *by: Tensor) -> Tensor:
        """Any of those that are allowed."""
        return allowed_partners(self._draw_seed, self.current_epoch, keys, self.allowed(*by))

    def perturb_input(self, batch: Batch) -> Batch:
        """w x_i + (1 - w) x_j; where features are mixed, their partners alone."""
        if self._features is None:
            float_input(type(self).__name__, batch, "Set mix_at to features, or use a method")
            return super().perturb_input(batch)
        batch.extra["mixing_partner"], weights = self._draw_pairs(batch)
        batch.extra["mixing_weight"] = weights[batch.extra["mixing_place"]]
        return batch

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """As in the base, or the logits of mixed features."""
        if self._features is None or "mixing_partner" not in batch.extra:
            return super().outputs(call, batch)

        def mixed(features: Tensor, layer: nn.Linear) -> Tensor:
            (everyone,), _ = gather_batch(features)
            return mix(features, everyone[batch.extra["mixing_partner"]], batch.extra["mixing_weight"])

        with self._features.moving(self.net, mixed, self.num_classes):
            return super().outputs(call, batch)


class LISA(DomainMix):
    """Selective mixup: within a class between domains, or within a domain between classes (Yao et al., 2022).

    Which of the two is drawn for each batch. Partners are any fitting sample of the batch, over all devices; a sample
    without one stays as it is. (The authors draw batches of groups, so that each has one, and replace mixup by CutMix
    on some data sets.)

    Args:
        alpha: α of the weights' Beta(α, α), the published 2.
        intra_label: Probability p_sel of mixing within a class; else within a domain. Published: 0.5 for CMNIST, CelebA
            and Waterbirds; 1 for shifts to other domains.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.DomainMix`; the published ``mix_at`` for text is
            ``features``.
    """

    def __init__(self, *args: Any, alpha: float = 2.0, intra_label: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, alpha=alpha, **kwargs)
        check_rate("intra_label", intra_label)
        self.intra_label = intra_label

    def allowed(self, label: Tensor, domain: Tensor) -> Tensor:
        """One class and other domains, or one domain and other classes."""
        number = torch.tensor([self._batch_idx], device=label.device)
        draw = keyed_random.uniform(self._draw_seed, "selective mixup", self.current_epoch, number)
        return torch.where(
            draw < self.intra_label, same_label_other_domain(label, domain), same_domain_other_label(label, domain)
        )
