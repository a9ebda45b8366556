"""A robust loss that is told which labels are wrong: how far one could get, for study alone."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.core import Batch, Coordinates, Needs
from lightning_perturb.core.adjusted import AdjustedModule
from lightning_perturb.nets.adjuster import ROBUST_LOSSES

# clean and noisy samples. GCE, JS, PolySoft: the premises of Theorems 3 and 4. PolySoft's lam lies below the
# cross-entropy of all noisy samples but those that are learned by heart. SL has no theorem: cross-entropy for clean
# and reverse cross-entropy for noisy samples is ours
_ORACLES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "gce": ((0.0,), (1.0,)),
    "sl": ((1.0, 0.0), (0.0, 1.0)),
    "js": ((0.0,), (1.0,)),
    "polysoft": ((20.0, 2.0), (1e-3, 2.0)),
}


class OracleRobustLoss(AdjustedModule):
    """For study only, since it knows which labels are wrong: a robust loss with other values for those [narl Fig. 2].

    The premise of [narl Theorems 3, 4]: hyperparameters that are best for clean samples on clean samples, and those
    that are best for noisy samples on noisy samples. It bounds what a learned adjuster can reach, and is no method to
    train with. The data module says which labels are wrong (or, in a loader of your own, ``noisy`` in a mapping).

    Args:
        robust_loss: ``gce`` (q), ``sl`` (gamma1, gamma2), ``js`` (pi1) or ``polysoft`` (lam, d).
        clean: Hyperparameters of samples with a right label; None takes those of the theorems: q = 0, pi1 = 0,
            lam = 20 and d = 2; for SL, which has none, 1 and 0.
        noisy: Hyperparameters of samples with a wrong label; None takes q = 1, pi1 = 1, lam = 0.001 and d = 2; for SL
            0 and 1.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If hyperparameters do not fit the loss; in training, if nobody says which labels are wrong.
    """

    coordinates = Coordinates.of("loss", "positive", "prior", "sample")
    needs = Needs(index=True, truth=True)
    paper = "narl"

    noisy: Tensor

    def __init__(
        self,
        *args: Any,
        robust_loss: Literal["gce", "sl", "js", "polysoft"] = "gce",
        clean: list[float] | None = None,
        noisy: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("robust_loss", robust_loss, ROBUST_LOSSES)
        self.chosen = ROBUST_LOSSES[robust_loss]
        right, wrong = _ORACLES[robust_loss]
        self.of_clean = self._checked_values("clean", right if clean is None else clean)
        self.of_noisy = self._checked_values("noisy", wrong if noisy is None else noisy)
        self._truth = False
        self.add_sample_state("noisy", dtype=torch.bool)

    def _checked_values(self, name: str, values: Any) -> dict[str, float]:
        names = self.chosen.names
        if len(values) != len(names):
            raise ValueError(f"{name}={values} must hold {len(names)} number(s), for {' and '.join(names)}.")
        found = dict(zip(names, map(float, values), strict=True))
        try:
            self.chosen.loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), **found)
        except ValueError as error:
            raise ValueError(f"{name}={list(values)} does not fit the loss: {error}") from error
        return found

    def setup(self, stage: str) -> None:
        """As in the base; takes from the data which labels are wrong."""
        super().setup(stage)
        if stage == "fit":
            self._truth = self.facts is not None and self.facts.noisy is not None
            if self.facts is not None and self.facts.noisy is not None:
                self.noisy.copy_(torch.from_numpy(self.facts.noisy))

    def is_noisy(self, batch: Batch) -> Tensor:
        """Which labels of the batch are wrong ``[B]``.

        Raises:
            ValueError: If neither the data nor the batch says it.
        """
        index = self.indices(batch)
        if "noisy" in batch.extra:
            return batch.extra["noisy"].bool()
        if not self._truth:
            raise ValueError(
                f"{type(self).__name__} must know which labels are wrong, which is for studies alone. Use a "
                "lightning_perturb data module or Wrap(datamodule=...) whose labels are known, or yield a mapping with "
                "'noisy'."
            )
        return self.read_sample_state("noisy", index)

    def adjusted(self, logits: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The clean or the noisy value of each hyperparameter by sample ``[B]``."""
        noisy = self.is_noisy(batch)
        pairs = {name: (self.of_noisy[name], self.of_clean[name]) for name in self.chosen.names}
        # in the precision that the loss is computed in
        like = logits if logits.dtype == torch.float64 else logits.float()
        return {
            name: torch.where(noisy, like.new_full((), wrong), like.new_full((), right))
            for name, (wrong, right) in pairs.items()
        }

    def robust(self, logits: Tensor, target: Tensor, values: dict[str, Tensor]) -> Tensor:
        """The robust loss ``[B]`` at these hyperparameters."""
        return self.chosen.loss(logits, target, **values)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Keeps what a loader of one's own says."""
        if not self._truth:
            self.write_state("noisy", self.indices(batch), self.is_noisy(batch))
