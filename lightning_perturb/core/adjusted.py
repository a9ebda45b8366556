"""The base of robust losses whose hyperparameters differ from sample to sample."""

from torch import Tensor

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule


class AdjustedModule(PerturbationModule):
    """A robust loss at hyperparameters that each sample has for itself [narl 7].

    Callbacks read them as ``hyperparameter/<name>``.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    def adjusted(self, logits: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Each hyperparameter of the loss by sample ``[B]``."""
        raise NotImplementedError(f"{type(self).__name__} must say the hyperparameters of its samples.")

    def robust(self, logits: Tensor, target: Tensor, values: dict[str, Tensor]) -> Tensor:
        """The robust loss ``[B]`` at these hyperparameters."""
        raise NotImplementedError(f"{type(self).__name__} must say its loss.")

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The robust loss at each sample's own hyperparameters."""
        values = self.adjusted(logits, target, batch)
        for name, column in values.items():
            self.tell(batch, f"hyperparameter/{name}", column)
        return self.robust(logits, target, values)
