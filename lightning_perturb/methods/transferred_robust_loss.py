"""A robust loss whose hyperparameters come from an adjuster that was meta-learned on other data."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb import adjusters
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.adjusted import AdjustedModule
from lightning_perturb.core.module import CHECKPOINT_KEY
from lightning_perturb.nets import Adjuster


class TransferredRobustLoss(AdjustedModule):
    """A robust loss with the frozen adjuster of another run: needs no meta data [narl Algorithm 2].

    Of three snapshots, epoch e of E uses the first, second or third, floor(3 e / E); where the Trainer's max_epochs
    does not say E, steps take the place of epochs. The checkpoint holds the snapshots: neither a run that is resumed
    nor one that is loaded needs files.

    Args:
        adjuster: What NARLAdjuster wrote: a file, a list of three files, or the folder of the three; or the name of an
            adjuster that the package ships (``lightning_perturb.adjusters.shipped()``).
        robust_loss: The loss that the adjuster must be of, ``gce``, ``sl``, ``js`` or ``polysoft``; None takes any.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        FileNotFoundError: At the start of a fit, if there is no such file, folder or shipped adjuster.
        ValueError: Likewise, if a file is no snapshot, there are not one or three, or they are of another loss, or of
            several losses or widths; if neither max_epochs nor max_steps says how long the run is.
    """

    coordinates = Coordinates.of("loss", "positive", "meta", "sample")
    paper = "narl"

    def __init__(
        self,
        *args: Any,
        adjuster: str | list[str] | None = None,
        robust_loss: Literal["gce", "sl", "js", "polysoft"] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.adjuster = adjuster
        self.robust_loss = robust_loss
        self.snapshots: list[adjusters.Snapshot] = []
        # what they were read from
        self._used: str | list[str] | None = None
        # in a tuple, modules are not registered as parts of this one
        self._adjusters: tuple[Adjuster, ...] = ()

    def use(self, snapshots: list[adjusters.Snapshot]) -> None:
        """Takes snapshots, one or three, instead of reading files."""
        self.snapshots = snapshots
        self._adjusters = tuple(adjusters.restore(s, f"snapshot {place}") for place, s in enumerate(snapshots))

    @property
    def part(self) -> int:
        """Which snapshot is used now, from 0."""
        number = len(self._adjusters)
        epochs, steps = self.trainer.max_epochs or -1, self.trainer.max_steps
        done, whole = (self.current_epoch, epochs) if epochs > 0 else (self.global_step, steps)
        return min(number * done // max(whole, 1), number - 1)

    @property
    def current(self) -> Adjuster:
        """The adjuster that is used now."""
        return self._adjusters[self.part]

    @torch.no_grad()
    def hyperparameters(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Each hyperparameter of the loss by sample ``[B]``, without gradient.

        Args:
            logits: Raw logits ``[B, C]``.
            y: Given labels ``[B]``.
        """
        return self.current.hyperparameters(logits, y)

    def adjusted(self, logits: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """As :meth:`hyperparameters`."""
        return self.hyperparameters(logits, target)

    def robust(self, logits: Tensor, target: Tensor, values: dict[str, Tensor]) -> Tensor:
        """The robust loss ``[B]`` at these hyperparameters."""
        return self.current.loss(logits, target, values)

    # life cycle ---------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Reads the snapshots, unless the checkpoint that training goes on from gave them."""
        super().on_fit_start()
        if not self.snapshots or (self.adjuster != self._used and not self._resuming):
            if self.adjuster is None:
                names = adjusters.shipped()
                raise ValueError(
                    "adjuster=None adjusts nothing. Give adjuster= a snapshot that NARLAdjuster wrote, its folder "
                    f"'adjuster'{', or one of: ' + ', '.join(names) if names else ''}."
                )
            self.use(adjusters.read_all(self.adjuster, self.robust_loss))
            self._used = self.adjuster
        found = self.snapshots[0]["robust_loss"]
        if self.robust_loss not in (None, found):
            raise ValueError(
                f"robust_loss={self.robust_loss!r}, but the checkpoint holds an adjuster of {found!r}. Give adjuster= "
                f"one of {self.robust_loss!r}, or leave robust_loss away."
            )
        trainer = self.trainer
        if len(self.snapshots) > 1 and (trainer.max_epochs or -1) < 1 and trainer.max_steps < 1:
            raise ValueError(
                "The snapshots of an adjuster are used one after the other, but neither max_epochs nor max_steps of "
                "the Trainer says how long the run is. Set one of them, or give a single snapshot."
            )
        like = next(self.net.parameters())
        for part in self._adjusters:
            part.to(like.device, like.dtype)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the snapshots."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] |= {"snapshots": list(self.snapshots), "adjuster": self._used}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the snapshots."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        self.use(saved.get("snapshots", []))
        self._used = saved.get("adjuster")
