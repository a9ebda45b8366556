"""Robust losses with fixed hyperparameters: bounded, or flatter than cross-entropy for samples that do not fit."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.core import Batch, Coordinates, Needs, PerturbationModule
from lightning_perturb.functional import gce_loss, js_loss, mae_loss, polysoft_loss, rce_loss, sl_loss


class GCE(PerturbationModule):
    """Generalised cross-entropy (1 - p_y^q) / q [narl 2].

    Args:
        q: From 0 (cross-entropy) to 1 (1 - p_y); published 0.7.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(self, *args: Any, q: float = 0.7, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("q", q, 0.0, 1.0)
        self.q = q

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """(1 - p_y^q) / q."""
        return gce_loss(logits, target, self.q)


class TruncatedGCE(GCE):
    """Generalised cross-entropy that drops samples whose label has a probability of at most k, for some epochs each.

    A sample's probability is the one of its last training batch; the authors score the training set anew.

    Args:
        k: Probability of the given label from which a sample is kept, in (0, 1]; published 0.5.
        prune_from: First epoch that drops samples (published: 40 of 120 for CIFAR-10, 80 of 150 for CIFAR-100).
        prune_every: Epochs for which the choice is held.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.GCE`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", ("sample", "corpus"))
    needs = Needs(index=True)

    label_probability: Tensor
    kept: Tensor

    def __init__(self, *args: Any, k: float = 0.5, prune_from: int = 40, prune_every: int = 10, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("k", k, 0.0, 1.0, open_low=True)
        check_positive("prune_from", prune_from, zero=True)
        check_positive("prune_every", prune_every)
        self.k = k
        self.prune_from = prune_from
        self.prune_every = prune_every
        self.add_sample_state("label_probability", fill=1.0)
        self.add_sample_state("kept", fill=1.0, dtype=torch.bool)

    def start_epoch(self) -> None:
        """Chooses the samples that are kept."""
        since = self.current_epoch - self.prune_from
        if since >= 0 and since % self.prune_every == 0:
            self.kept.copy_(self.label_probability > self.k)

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """(1 - p_y^q) / q for samples that are kept, its value at p_y = k for the others."""
        loss = super().sample_loss(logits, target, batch)
        kept = self.read_sample_state("kept", self.indices(batch))
        limit = math.log(self.k)
        dropped = -math.expm1(self.q * limit) / self.q if self.q else -limit
        return torch.where(kept, loss, loss.new_full((), dropped))

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Keeps p_y of the batch."""
        probability = 1 - mae_loss(outputs["logits"], batch.y)
        self.write_state("label_probability", self.indices(batch), probability)


class MAE(PerturbationModule):
    """Mean absolute error between label and prediction, as 1 - p_y: half of it, as in the papers.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "prior", "corpus")

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """1 - p_y."""
        return mae_loss(logits, target)


class RCE(PerturbationModule):
    """Reverse cross-entropy -A (1 - p_y) [narl, before eq. 3].

    Args:
        A: What stands for the logarithm of 0; -4 in the authors' current code, log(1e-4) = -9.21 in the first one.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(self, *args: Any, A: float = -4.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not A < 0:
            raise ValueError(f"A={A!r} must be below 0: it stands for the logarithm of 0.")
        self.A = A

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """-A (1 - p_y)."""
        return rce_loss(logits, target, self.A)


class SL(RCE):
    """Symmetric cross-entropy gamma1 CE + gamma2 RCE [narl 3].

    Args:
        gamma1: Weight of cross-entropy (published: 0.1 for CIFAR-10, 6 for CIFAR-100).
        gamma2: Weight of reverse cross-entropy.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.RCE`.
    """

    def __init__(self, *args: Any, gamma1: float = 0.1, gamma2: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("gamma1", gamma1, zero=True)
        check_positive("gamma2", gamma2, zero=True)
        self.gamma1 = gamma1
        self.gamma2 = gamma2

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """gamma1 CE + gamma2 RCE."""
        return sl_loss(logits, target, self.gamma1, self.gamma2, self.A)


class PolySoft(PerturbationModule):
    """PolySoft, the loss behind polynomial soft self-paced weights; flat where cross-entropy exceeds lam [narl 4].

    Args:
        lam: Cross-entropy from which a sample counts as noise. Not published; 5, the middle of the adjuster's range.
        d: Degree, above 1; 2 gives linear weights.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(self, *args: Any, lam: float = 5.0, d: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("lam", lam)
        check_range("d", d, 1.0, float("inf"), open_low=True)
        self.lam = lam
        self.d = d

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """(d - 1) lam / d (1 - (1 - CE / lam)^(d / (d - 1)))."""
        return polysoft_loss(logits, target, self.lam, self.d)


class JS(PerturbationModule):
    """Generalised Jensen-Shannon divergence between label and prediction [narl 5].

    Args:
        pi1: Weight of the label, from 0 (cross-entropy) to 1 (1 - p_y). Published for CIFAR-10: 0.1, 0.7, 0.7, 0.9 and
            0.9 at 0, 20, 40, 60 and 80 % symmetric noise, 0.3 for asymmetric; CIFAR-100: 0.1, 0.1, 0.3, 0.5, 0.3; 0.5.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "hyperparameter", "corpus")

    def __init__(self, *args: Any, pi1: float = 0.7, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_range("pi1", pi1, 0.0, 1.0)
        self.pi1 = pi1

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The divergence."""
        return js_loss(logits, target, self.pi1)
