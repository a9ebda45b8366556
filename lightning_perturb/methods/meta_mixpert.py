"""Meta-MixPert: a learned mixture of loss-lowering and loss-raising perturbation for each sample [tax 62]."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.modes import attackable, frozen_statistics
from lightning_perturb.functional import (
    cross_entropy,
    logit_gradient,
    margin,
    positive_perturbation,
    probability_margin,
    standardize,
)
from lightning_perturb.methods.pgd_training import PGDTraining
from lightning_perturb.nets import MetaMLP

Characteristic = Literal["loss", "gradient_norm", "margin"]


class MetaMixPert(MetaPerturbationModule, PGDTraining):
    """Loss-lowering and loss-raising perturbation of every sample, mixed by a learned weight α in (0, 1) [tax 62].

    α CE(u + η (e_y - p)) + (1 - α) CE(f(x + δ)). α is a function of loss, gradient norm and margin of the sample, each
    standardised over the batch of all ranks. Both perturbations are constants in the virtual and the real step. With
    ``eps2=0`` (the default) nothing is attacked, and one forward serves both terms; otherwise clean and attacked inputs
    run one after the other, each normalised by its own batch, and batch-norm's running statistics move with the clean
    ones, which are what evaluation sees.

    Args:
        eta: η, length of the loss-lowering step [tax 59].
        eps2: ε2, radius of the attack in units of ``eps_space``; 0 for none.
        characteristics: What α is a function of; leave out any but the last (the paper's ablation, Table 21).
        margin_of: Margin of the ``probability`` or of the ``logit``; the paper does not tell.
        hidden: Width of the network that gives α.
        alpha_hard: Round α to 0 or 1 in the real step, as MixPert chooses [tax 57]: 1 from 0.5 on. The virtual step,
            from which α is learned, mixes softly.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`, and of
            :class:`~lightning_perturb.methods.PGDTraining` but ``eps``.
    """

    coordinates = Coordinates.of(("feature", "logit"), ("positive", "negative"), ("meta", "adversarial"), "sample")
    paper = "tax"

    meta_net: MetaMLP

    def __init__(
        self,
        *args: Any,
        eta: float = 2.0,
        eps2: float = 0.0,
        characteristics: tuple[Characteristic, ...] = ("loss", "gradient_norm", "margin"),
        margin_of: Literal["probability", "logit"] = "probability",
        hidden: int = 100,
        alpha_hard: bool = False,
        **kwargs: Any,
    ) -> None:
        check_positive("eps2", eps2, zero=True)
        super().__init__(*args, eps=eps2, **kwargs)
        check_positive("eta", eta)
        check_choice("margin_of", margin_of, ("probability", "logit"))
        if not characteristics or len(set(characteristics)) != len(characteristics):
            raise ValueError(
                f"characteristics={characteristics} is empty or names one twice. Name at least one of loss, "
                "gradient_norm, margin."
            )
        for name in characteristics:
            check_choice("characteristics", name, ("loss", "gradient_norm", "margin"))
        self.eta = eta
        self.characteristics = characteristics
        self.margin_of = margin_of
        self.alpha_hard = alpha_hard
        self.add_meta("meta_net", MetaMLP(len(characteristics), hidden))

    def perturb_input(self, batch: Batch) -> Batch:
        """Keeps δ beside x; nothing is attacked where ``eps2=0``."""
        if self.eps:
            with attackable(self.net):
                batch.extra["delta"] = self.attack(batch, self.eps)
        return batch

    @property
    def moves_input(self) -> bool:
        """The logits are those of the clean inputs; attacked ones stand beside them."""
        return False

    def outputs(self, call: Any, batch: Batch) -> dict[str, Tensor]:
        """Logits of the clean batch, and of the attacked one where there is one."""
        outputs = super().outputs(call, batch)
        if "delta" in batch.extra:
            attacked = self.moved(batch, batch.extra["delta"])
            with frozen_statistics(self.net):
                outputs["attacked_logits"] = super().outputs(call, attacked)["logits"]
        return outputs

    def alpha(self, logits: Tensor, y: Tensor) -> Tensor:
        """The weight α of the loss-lowering part ``[B]``, a constant in the logits.

        Args:
            logits: Raw logits of the clean inputs ``[B, C]``.
            y: Given labels ``[B]``.
        """
        with torch.no_grad():
            values = torch.stack([self._characteristic(name, logits, y) for name in self.characteristics], 1)
            everyone = gather_rows(values)[0]
            values = standardize(values, everyone.mean(0), everyone.var(0, correction=0))
        return self.meta_net(values.to(self.dtype)).sigmoid()[:, 0]  # type: ignore[no-any-return]

    def _characteristic(self, name: str, logits: Tensor, y: Tensor) -> Tensor:
        if name == "loss":
            return cross_entropy(logits, y)
        if name == "gradient_norm":
            return torch.linalg.vector_norm(logit_gradient(logits, y), dim=1)  # type: ignore[no-any-return]
        return probability_margin(logits, y) if self.margin_of == "probability" else margin(logits, y)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mean of α l⁻ + (1 - α) l⁺."""
        return super().loss(outputs, batch) if self.phase == "warmup" else self._mixed(outputs, batch, self.alpha_hard)

    def _virtual_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        # what is rounded has no gradient
        return self._mixed(outputs, batch.copy(), hard=False)

    def _mixed(self, outputs: dict[str, Tensor], batch: Batch, hard: bool) -> Tensor:
        logits = outputs["logits"]
        alpha = self.alpha(logits, batch.y)
        self.tell(batch, "hyperparameter/alpha", alpha)
        if hard:
            alpha = (alpha >= 0.5).to(alpha.dtype)
        v = positive_perturbation(logits.detach(), batch.y, self.eta)
        lowered = cross_entropy(logits + v, batch.y)
        raised = cross_entropy(outputs.get("attacked_logits", logits), batch.y)
        losses = alpha * lowered + (1 - alpha) * raised
        self.tell(batch, "perturbation_norm", alpha * v.abs().sum(1))
        self.tell(batch, "sample_loss", losses)
        return losses.mean()
