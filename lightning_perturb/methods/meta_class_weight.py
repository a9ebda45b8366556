"""Meta class weights: class weights for the labels' shift, and a learned part for that of each sample."""

from typing import Any

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.batch_learned import BatchLearnedModule
from lightning_perturb.methods.class_weights import ClassBalanced


class MetaClassWeight(BatchLearnedModule, ClassBalanced):
    """Losses times w_y + ε_i: weights by class frequency and a conditional weight (Jamal et al., 2020) [iada Table 3].

    w is the effective-number weight of the class. ε_i starts at 0 in every batch and makes one step on the loss of
    clean samples after a virtual step of the network; the real step uses it, and it is forgotten. As published, the
    virtual step takes the sum of the batch's losses, not their mean, ε may be negative, and all begins after
    ``warmup_epochs`` of plain cross-entropy (160 of 200 for CIFAR-LT).

    Args:
        conditional_lr: Step of ε against its gradient. With the published 0.01 and the small rates of late training
            ε hardly moves; 0 leaves the class weights alone.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule` and
            :class:`~lightning_perturb.methods.ClassBalanced`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), ("prior", "meta"), ("category", "sample"))

    def __init__(self, *args: Any, conditional_lr: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("conditional_lr", conditional_lr, zero=True)
        self.conditional_lr = conditional_lr

    def moved(self, gradient: Tensor) -> Tensor:
        """-conditional_lr dM/dε."""
        return -self.conditional_lr * gradient

    def _virtual_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        # the sum over the samples of all devices, since gradients are averaged over these
        return len(self._learned) * super()._virtual_loss(outputs, batch)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """(w_y + ε) l."""
        conditional = self.learned(batch).to(loss.dtype)
        self.tell(batch, "hyperparameter/conditional_weight", conditional)
        return super().perturb_loss(loss, logits, batch) + conditional * loss
