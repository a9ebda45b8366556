"""The base of methods that put the network back to what it was at an earlier moment of the training."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core.module import CHECKPOINT_KEY, PerturbationModule


class KeptWeightsModule(PerturbationModule):
    """A method that keeps a copy of the network's weights and statistics, on the CPU and in checkpoints.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept_weights: dict[str, Tensor] = {}

    def keep_weights(self) -> None:
        """Copies the network as it is, in place of an earlier copy."""
        self._kept_weights = {name: value.cpu().clone() for name, value in self.net.state_dict().items()}

    def restore_weights(self) -> None:
        """Puts the network back to the copy, and drops that."""
        self.net.load_state_dict(self._kept_weights)
        self.drop_weights()
        # autocast keeps the half-precision copies of the old weights
        torch.clear_autocast_cache()

    def drop_weights(self) -> None:
        """Drops the copy."""
        self._kept_weights = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the copy as long as there is one."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["kept_weights"] = dict(self._kept_weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the copy."""
        super().on_load_checkpoint(checkpoint)
        self._kept_weights = dict(checkpoint.get(CHECKPOINT_KEY, {}).get("kept_weights", {}))
