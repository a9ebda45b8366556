"""NARL-Adjuster: the hyperparameters of a robust loss, for each sample, as a learned function of its margin."""

import math
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lightning_perturb import __version__, adjusters
from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.adjusted import AdjustedModule
from lightning_perturb.core.module import CHECKPOINT_KEY
from lightning_perturb.nets import Adjuster


class NARLAdjuster(MetaPerturbationModule, AdjustedModule):
    """A robust loss whose hyperparameters, for each sample, are a learned function of its margin [narl Algorithm 1].

    A-GCE, A-SL, A-JS or A-PolySoft by ``robust_loss``. A hyperparameter is offset + scale sigmoid(raw output), clamped;
    the margin is a constant in the virtual and the real step.

    After a third, after two thirds and at the end of the epochs the adjuster is written into a file of some kilobytes,
    which :class:`~lightning_perturb.methods.TransferredRobustLoss` uses on other data.

    Args:
        robust_loss: ``gce`` (learns q), ``sl`` (gamma1, gamma2), ``js`` (pi1) or ``polysoft`` (lam, d).
        scale: Factor of the sigmoid for each hyperparameter; None takes the published ones: 1.5 for GCE, 1 and 1 for
            SL, 1.4 for JS. Those of PolySoft are not published: 10, and 4 above 1.01.
        soft_range: Spread the sigmoid over the reachable interval instead of clamping, where a clamped hyperparameter
            learns nothing (GCE: two thirds of the way on).
        hidden: Width of the adjuster.
        meta_every: The adjuster moves in every so manieth batch, T_meta.
        snapshots: Folder for the three files; None takes ``adjuster`` beside the logs of the run, and writes none where
            there is no logger.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "meta", "sample")
    paper = "narl"

    meta_net: Adjuster

    def __init__(
        self,
        *args: Any,
        robust_loss: Literal["gce", "sl", "js", "polysoft"] = "gce",
        scale: list[float] | None = None,
        soft_range: bool = False,
        hidden: int = 100,
        meta_every: int = 10,
        snapshots: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, meta_every=meta_every, **kwargs)
        self.add_meta("meta_net", Adjuster(robust_loss, scale, soft_range=soft_range, hidden=hidden))
        self.snapshots = snapshots
        self._taken: dict[int, adjusters.Snapshot] = {}
        self._folder: Path | None = None

    def hyperparameters(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Each hyperparameter of the loss by sample ``[B]``, a constant in the logits.

        Args:
            logits: Raw logits ``[B, C]``.
            y: Given labels ``[B]``.
        """
        return self.meta_net.hyperparameters(logits, y)

    def adjusted(self, logits: Tensor, target: Tensor, batch: Batch) -> dict[str, Tensor]:
        """As :meth:`hyperparameters`."""
        return self.hyperparameters(logits, target)

    def robust(self, logits: Tensor, target: Tensor, values: dict[str, Tensor]) -> Tensor:
        """The robust loss ``[B]`` at these hyperparameters."""
        return self.meta_net.loss(logits, target, values)

    # snapshots ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """As in the base; takes a snapshot after the last batch of its epoch."""
        result = super().training_step(batch, batch_idx)
        self._take_if_due()
        return result

    def _take_if_due(self) -> None:
        epochs = self.trainer.max_epochs or -1
        if self.trainer.is_last_batch and epochs > 0:
            # the adjuster's last move of this epoch is made, and no checkpoint of it was written yet
            done = self.current_epoch + 1
            due = [part for part in _PARTS if math.ceil(part * epochs / adjusters.SNAPSHOTS) == done]
            self._taken.update((part, adjusters.take(self.meta_net, done, epochs, self.provenance())) for part in due)
            if due:
                self._write()

    def provenance(self) -> dict[str, Any]:
        """How the adjuster is made, for its snapshots."""
        data: Any = getattr(self.trainer, "datamodule", None)
        return {
            "method": type(self).__name__,
            "lightning_perturb": __version__,
            "net": type(self.net).__name__,
            "data": type(data).__name__,
            "label_noise": described(getattr(data, "label_noise", None)),
            "meta_size": getattr(data, "meta_size", None),
            "meta_every": self.meta_every,
            "seed": self._draw_seed,
        }

    def _write(self) -> None:
        if self._folder is None or not self.trainer.is_global_zero:
            return
        # all of them: a run that was resumed may have another folder
        for part, snapshot in self._taken.items():
            adjusters.write(snapshot, self._folder / f"adjuster-{part}of{adjusters.SNAPSHOTS}.pt")

    def setup(self, stage: str) -> None:
        """As in the base; forgets the snapshots of an earlier run."""
        super().setup(stage)
        if stage == "fit" and self.trainer.global_step == 0:
            self._taken = {}

    def on_fit_start(self) -> None:
        """As in the base; finds the folder for snapshots."""
        super().on_fit_start()
        epochs = self.trainer.max_epochs or -1
        if self.snapshots is not None and epochs < 1:
            raise ValueError(
                f"snapshots={self.snapshots!r} are taken at thirds of the epochs, but Trainer(max_epochs={epochs}) "
                "does not say how many there are. Set max_epochs."
            )
        self._folder = None
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.snapshots is not None:
            self._folder = Path(self.snapshots)
        elif self.trainer.loggers:
            # a collective: on all ranks
            logs = self.trainer.log_dir
            self._folder = None if logs is None else Path(logs) / "adjuster"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the snapshots that were taken."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["snapshots"] = dict(self._taken)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the snapshots that were taken."""
        super().on_load_checkpoint(checkpoint)
        self._taken = dict(checkpoint.get(CHECKPOINT_KEY, {}).get("snapshots", {}))


_PARTS = range(1, adjusters.SNAPSHOTS + 1)


def described(thing: Any) -> str:
    """The class of an injected object with its plain arguments, for a snapshot."""
    if thing is None:
        return "none"
    plain = {k: v for k, v in vars(thing).items() if isinstance(v, (bool, int, float, str)) and not k.startswith("_")}
    return f"{type(thing).__name__}({', '.join(f'{name}={value}' for name, value in plain.items())})"
