"""A trained network that teaches another one: frozen, and no part of it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.core.load import load
from lightning_perturb.core.module import PerturbationModule


class Teacher:
    """A network, or the checkpoint of one, opened when it is first asked.

    No optimizer, checkpoint or parameter count of a method that holds it sees it.

    Args:
        source: A network, a method of this package, or the checkpoint of one; None where there is none yet.
    """

    def __init__(self, source: nn.Module | str | None) -> None:
        self.source = source
        self._net: nn.Module | None = None
        self._placed: torch.device | None = None

    @property
    def net(self) -> nn.Module:
        """The network, in evaluation mode.

        Raises:
            ValueError: If none was given.
            FileNotFoundError: If its checkpoint does not exist.
        """
        if self._net is None:
            self._net = self._opened().eval()
        elif self._net.training:
            # somebody has trained it since; what does not change is not walked through at every step
            self._net.eval()
        return self._net

    def _opened(self) -> nn.Module:
        if self.source is None:
            raise ValueError(
                "teacher=None has nothing to teach. Give teacher= a checkpoint of this package, such as "
                "logs/.../last.ckpt, or in Python a trained network."
            )
        if not isinstance(self.source, str):
            return self.source
        if not Path(self.source).is_file():
            raise FileNotFoundError(f"teacher={self.source!r} is not a file. Give the checkpoint of a trained method.")
        return load(self.source)

    def on(self, module: PerturbationModule) -> "Teacher":
        """This teacher, where the module is: on its device, in its memory format."""
        first = next(self.net.parameters(), None)
        # a trainer that tests the teacher leaves it elsewhere
        if self._placed != module.device or (first is not None and first.device != module.device):
            self.net.to(module.device)
            if module.channels_last:
                self.net.to(memory_format=torch.channels_last)
            self._placed = module.device
        return self

    def logits(self, module: PerturbationModule, x: Any) -> Tensor:
        """What it says of an input ``[B, C]``, a constant.

        Args:
            module: The method that is taught.
            x: Its input.

        Raises:
            ValueError: If it does not give logits of the method's classes.
        """
        with torch.no_grad():
            try:
                found = module.run(self.net, x)
            except ValueError as error:
                raise ValueError(
                    f"teacher={type(self.net).__name__} does not give (B, {module.num_classes}) on the student's "
                    "input. Give a teacher of the same classes and the same inputs."
                ) from error
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        return found
