"""The base of methods that know the covariance of the features of each class, running over training."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import gather_rows
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.core.meta import MetaPerturbationModule
from lightning_perturb.functional.isda import ClassCovariance, class_covariance_update

# above this size the covariances are kept by their diagonal, as the authors do for 1000 classes and more
_LARGEST = 512 * 2**20
_STATE = ("feature_count", "feature_mean", "feature_covariance")


class CovarianceModule(FeatureModule):
    """A method with running covariances of the deep features of each class.

    They are those of all training samples since the end of the warm-up, on all ranks, pooled exactly: none fades.

    Args:
        covariance: ``full`` matrices, ``diagonal`` ones (variances alone), or ``auto``: full below 512 MiB.
        ramp: ``linear`` lets the strength of the augmentation grow with the share of the epochs that are done, from 0;
            ``constant`` does not.
        total_epochs: Epochs that the ramp is stretched over; None takes the Trainer's.
        **kwargs: Arguments of :class:`~lightning_perturb.core.features.FeatureModule`.

    Raises:
        ValueError: If an argument is out of range. In training: if the ramp has no end.
    """

    feature_count: Tensor
    feature_mean: Tensor
    feature_covariance: Tensor

    def __init__(
        self,
        *args: Any,
        covariance: Literal["auto", "full", "diagonal"] = "auto",
        ramp: Literal["linear", "constant"] = "linear",
        total_epochs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("covariance", covariance, ("auto", "full", "diagonal"))
        check_choice("ramp", ramp, ("linear", "constant"))
        if total_epochs is not None:
            check_positive("total_epochs", total_epochs)
        self.ramp = ramp
        self.total_epochs = total_epochs
        classes, width = self.num_classes, self.num_features
        full = covariance == "full" or (covariance == "auto" and 4 * classes * width**2 < _LARGEST)
        self.add_state("feature_count", torch.zeros(classes, dtype=torch.int64))
        self.add_state("feature_mean", torch.zeros(classes, width))
        # expanded: the first value of a large state takes no memory
        self.add_state("feature_covariance", torch.zeros(()).expand(classes, width, *[width] * full))

    def ramped(self, strength: float | Tensor) -> float | Tensor:
        """A strength in the current epoch, counted from 0: times epoch / epochs with ``ramp="linear"``."""
        if self.ramp == "constant":
            return strength
        total = self.total_epochs or self.trainer.max_epochs
        if total is None or total < 1:
            raise ValueError(
                f"ramp='linear' of {type(self).__name__} grows until the last epoch, but Trainer(max_epochs={total}) "
                "names none. Set max_epochs or total_epochs, or take ramp='constant'."
            )
        return strength * min(self.current_epoch / total, 1.0)

    def covariances(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Σ in the loss of this batch, ``[C, A, A]`` or ``[C, A]``: with this batch in it, as ISDA does."""
        return self.pooled(outputs, batch).covariance

    def pooled(self, outputs: dict[str, Tensor], batch: Batch) -> ClassCovariance:
        """The statistics with this batch, of all ranks, in them. Nothing is stored before :meth:`update_state`."""
        if _STATE[0] not in batch.extra:
            features = outputs["features"].detach().to(self.feature_mean.dtype)
            found = self.settled(class_covariance_update(*self._statistics, *gather_rows(features, batch.y)))
            batch.extra.update(zip(_STATE, found, strict=True))
        return ClassCovariance(*(batch.extra[name] for name in _STATE))

    def settled(self, found: ClassCovariance) -> ClassCovariance:
        """What is kept of the statistics after a batch: all that was found, here."""
        return found

    @property
    def _statistics(self) -> ClassCovariance:
        return ClassCovariance(self.feature_count, self.feature_mean, self.feature_covariance)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Takes the batch into the statistics."""
        super().update_state(outputs, batch)
        if self.phase == "warmup":
            return
        for kept, value in zip(self._statistics, self.pooled(outputs, batch), strict=True):
            kept.copy_(value)


class MetaCovarianceModule(MetaPerturbationModule, CovarianceModule):
    """A method whose covariances are corrected on clean samples [iada 9], as in MetaSAug.

    In every batch with a meta step, Σ - ``sigma_lr`` dM/dΣ takes the place of the statistics Σ in the real step, and is
    then forgotten: the next batch starts from the statistics again. These take a batch in after its loss.

    Args:
        sigma_lr: Rate of the covariances, MetaSAug's 0.1; 0 leaves them as they are, where something else is learned.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`, and of
            :class:`~lightning_perturb.core.covariances.CovarianceModule`.
    """

    remedy = "Raise sigma_lr, or take ISDA, which learns nothing."

    def __init__(self, *args: Any, sigma_lr: float = 0.1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("sigma_lr", sigma_lr, zero=True)
        self.sigma_lr = sigma_lr
        self._corrected: Tensor | None = None

    @property
    def learns_covariances(self) -> bool:
        """Whether there is a step of the covariances."""
        return self.sigma_lr > 0

    @property
    def learns(self) -> bool:
        """As in the base, or the covariances alone."""
        return super().learns or self.learns_covariances

    def covariances(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Σ in the loss of this batch: corrected where there was a meta step, else the statistics."""
        return self.feature_covariance if self._corrected is None else self._corrected

    def transient(self) -> list[Tensor]:
        """Σ, to be learned for one batch, after what others learn for one."""
        self._corrected = self.feature_covariance.clone().requires_grad_() if self.learns_covariances else None
        return super().transient() if self._corrected is None else [*super().transient(), self._corrected]

    def move_transient(self, gradients: list[Tensor]) -> None:
        """Σ - sigma_lr dM/dΣ."""
        if self._corrected is not None:
            *gradients, own = gradients
            self._corrected = self._corrected.detach().sub(own, alpha=self.sigma_lr)
        super().move_transient(gradients)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Forgets the correction and takes the batch into the statistics."""
        self._corrected = None
        super().update_state(outputs, batch)
