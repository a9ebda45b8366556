"""MixPert: hard samples get a loss-lowering logit perturbation, the rest a loss-raising input perturbation [tax 57]."""

from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive, check_rate
from lightning_perturb.core import Batch, Coordinates, Needs
from lightning_perturb.core.batch import _map_input
from lightning_perturb.core.distributed import gather_rows, rank, world_size
from lightning_perturb.core.modes import attackable, evaluating
from lightning_perturb.functional import (
    cross_entropy,
    hard_by_share,
    hard_by_value,
    positive_perturbation,
    sample_bounds,
)
from lightning_perturb.methods.pgd_training import PGDTraining


class MixPert(PGDTraining):
    """Mixed positive and negative perturbation [tax 57, Algorithm 2].

    Samples whose loss reaches the threshold τ get ``eta (e_y - p)`` added to their logits, one step that lowers their
    loss [tax 59]; the others are attacked by PGD inside ``eps2``. With ``eps2=0`` (the default, and the paper's best on
    clean test sets) only the positive part is left [tax 56]; it ranks samples by the training forward itself.

    Args:
        eta: η, step and bound ε1 of the positive part. The paper searches {0.5, 1, 2, 4}; its code has 3.
        eps2: ε2, radius of the negative part in units of ``eps_space``. The paper searches {0, 8, 10, 12}/255.
        share: Share of samples that count as hard, about the noise rate. The paper searches
            {0, .15, .25, .35, .45, .5}.
        threshold: ``batch_share``: the ``share`` with the largest losses of each batch (released code).
            ``value``: a loss of at least ``tau``. ``epoch_quantile``: a loss that would have been among the
            ``share`` largest of the epoch before (the first epoch uses ``batch_share``).
        tau: τ for ``threshold="value"``.
        bounds: ``shared``: ε1 and ε2 for all. ``per_sample``: ε1 l/τ and ε2 (2 - l/τ) [tax 66].
        sync_threshold: Rank the samples of all devices as one batch; False ranks each device's alone.
        clean_weight: Weight of the clean loss; 0 is the paper's equation, 0.4 the released code.
        clean_samples: Whose clean loss it is: that of ``attacked`` samples (released code for images), or of ``all``,
            hard ones included (released code for texts).
        rank_mode: Mode of the ranking pass that ``eps2 > 0`` needs: ``eval``, or ``train`` (released code; moves
            batch-norm statistics).
        **kwargs: Arguments of :class:`~lightning_perturb.methods.PGDTraining` but ``eps``.
    """

    coordinates = Coordinates.of(("feature", "logit"), ("positive", "negative"), "adversarial", "sample")

    last_loss: Tensor
    quantile: Tensor

    def __init__(
        self,
        *args: Any,
        eta: float = 2.0,
        eps2: float = 0.0,
        share: float = 0.15,
        threshold: Literal["batch_share", "value", "epoch_quantile"] = "batch_share",
        tau: float | None = None,
        bounds: Literal["shared", "per_sample"] = "shared",
        sync_threshold: bool = True,
        clean_weight: float = 0.0,
        clean_samples: Literal["attacked", "all"] = "attacked",
        rank_mode: Literal["eval", "train"] = "eval",
        **kwargs: Any,
    ) -> None:
        check_positive("eps2", eps2, zero=True)
        if "eps" in kwargs:
            raise ValueError(f"eps={kwargs['eps']} is no argument of {type(self).__name__}: its radius is eps2.")
        super().__init__(*args, eps=eps2, **kwargs)
        check_positive("eta", eta, zero=True)
        check_rate("share", share)
        check_rate("clean_weight", clean_weight)
        check_choice("threshold", threshold, ("batch_share", "value", "epoch_quantile"))
        check_choice("bounds", bounds, ("shared", "per_sample"))
        check_choice("clean_samples", clean_samples, ("attacked", "all"))
        check_choice("rank_mode", rank_mode, ("eval", "train"))
        if (threshold == "value") != (tau is not None):
            raise ValueError(
                f"threshold={threshold!r} and tau={tau} contradict each other: tau is the loss of threshold='value', "
                "and that threshold needs it."
            )
        if tau is not None:
            check_positive("tau", tau, zero=True)
        if bounds == "per_sample" and tau == 0:
            raise ValueError("tau=0 and bounds='per_sample' contradict each other: the bounds divide by tau.")
        if clean_weight and not eps2 and clean_samples == "attacked":
            raise ValueError(
                f"clean_weight={clean_weight} weighs the clean loss of attacked samples, but eps2=0 attacks none. "
                "Set eps2, leave clean_weight at 0, or set clean_samples to all."
            )
        self.eta = eta
        self.share = share
        self.threshold = threshold
        self.tau = tau
        self.bounds = bounds
        self.sync_threshold = sync_threshold
        self.clean_weight = clean_weight
        self.clean_samples = clean_samples
        self.rank_mode = rank_mode
        if threshold == "epoch_quantile":
            self.needs = Needs(index=True)
            self.add_sample_state("last_loss", fill=float("nan"))
            self.add_state("quantile", torch.tensor(float("nan")))

    # which samples are hard ---------------------------------------------------------------------------------------

    def hard_samples(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """The hard set {i: l_i >= τ}.

        Args:
            loss: Unperturbed losses of this rank's samples ``[B]``, detached.

        Returns:
            The mask ``[B]`` and the threshold τ (infinite where no sample is hard).
        """
        tau = self._tau(loss)
        if tau is not None:
            return hard_by_value(loss, tau), tau
        if not self.sync_threshold or world_size() == 1:
            hard = hard_by_share(loss, self.share)
            return hard, _lowest(loss, hard)
        everyone, owner = gather_rows(loss, torch.full_like(loss, rank()))
        hard = hard_by_share(everyone, self.share)
        return hard[owner == rank()], _lowest(everyone, hard)

    def _tau(self, loss: Tensor) -> Tensor | None:
        if self.threshold == "value":
            return loss.new_tensor(self.tau)
        if self.threshold == "epoch_quantile" and not torch.isnan(self.quantile):
            return self.quantile
        return None

    def start_epoch(self) -> None:
        """Takes the threshold from the losses of the epoch before."""
        super().start_epoch()
        if self.threshold != "epoch_quantile":
            return
        seen = self.last_loss[~torch.isnan(self.last_loss)]
        if len(seen):
            hard = hard_by_share(seen, self.share)
            self.quantile.copy_(_lowest(seen, hard))

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Keeps the losses for the next epoch's quantile."""
        if self.threshold == "epoch_quantile":
            loss = batch.extra.get("ranked_loss")
            if loss is None:
                loss = cross_entropy(outputs["logits"], batch.y)
            self.write_state("last_loss", self.indices(batch), loss)

    # the two perturbations ----------------------------------------------------------------------------------------

    def perturb_input(self, batch: Batch) -> Batch:
        """x + δ for samples that are not hard; nothing is attacked or ranked here where ``eps2=0``."""
        if not self.eps:
            return batch
        # nullcontext keeps the mode: in train mode, a frozen batch norm stays frozen
        with torch.no_grad(), evaluating(self.net) if self.rank_mode == "eval" else nullcontext():
            loss = cross_entropy(self.run(self.net, batch.view), batch.y)
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        hard, tau = self.hard_samples(loss)
        clean = batch.view
        easy = ~hard
        if easy.any():
            rows = _map_input(clean, lambda x: x[easy])
            part = Batch(rows, batch.y[easy], self.sample_keys(batch)[easy])
            with attackable(self.net):
                found = self.attack(part, self._negative_bound(loss[easy], tau))
            delta = found.new_zeros(len(batch), *found.shape[1:])
            delta[easy] = found
            batch = self.moved(batch, delta)
        batch.extra.update(hard=hard, tau=tau, ranked_loss=loss)
        if self.clean_weight:
            batch.extra["clean_input"] = clean  # type: ignore[assignment]
        return batch

    @property
    def moves_input(self) -> bool:
        """Where anything is attacked."""
        return self.eps > 0

    def outputs(self, call: Any, batch: Batch) -> dict[str, Tensor]:
        """Logits of the mixed batch, and of the clean one where ``clean_weight`` asks for it."""
        outputs = super().outputs(call, batch)
        if "clean_input" in batch.extra:
            outputs["clean_logits"] = self.run(call, batch.extra["clean_input"])
        return outputs

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + η (e_y - p) for hard samples [tax 60]."""
        with torch.no_grad():
            raw = logits.detach()
            if "hard" not in batch.extra:
                loss = cross_entropy(raw, batch.y)
                hard, tau = self.hard_samples(loss)
                batch.extra.update(hard=hard, tau=tau, ranked_loss=loss)
            hard, loss = batch.extra["hard"], batch.extra["ranked_loss"]
            step = self.eta * hard.to(raw.dtype)
            if self.bounds == "per_sample":
                step = hard * sample_bounds(loss, batch.extra["tau"], self.eta, self.eps)[0]
            v = positive_perturbation(raw, batch.y, step)
            batch.extra["perturbation_norm"] = v.abs().sum(1)
            if "clean_logits" in outputs:
                batch.extra["clean_logits"] = outputs["clean_logits"]
        return logits + v

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """Mixes in the clean loss, where ``clean_weight`` asks for it."""
        if not self.clean_weight:
            return loss
        # where nothing is attacked the raw logits are those of the clean batch
        clean = batch.extra.get("clean_logits", logits)
        mixed = (1 - self.clean_weight) * loss + self.clean_weight * cross_entropy(clean, batch.y)
        return mixed if self.clean_samples == "all" else torch.where(batch.extra["hard"], loss, mixed)

    def _negative_bound(self, loss: Tensor, tau: Tensor) -> float | Tensor:
        if self.bounds == "shared" or not torch.isfinite(tau):
            return self.eps
        return sample_bounds(loss, tau, self.eta, self.eps)[1]


def _lowest(loss: Tensor, hard: Tensor) -> Tensor:
    return torch.where(hard, loss, torch.inf).min()
