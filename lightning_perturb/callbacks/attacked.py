"""Evaluation under attack: how many samples are still classified right when somebody moves them a little."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from lightning_perturb.attacks import PGD, Attack, right_under
from lightning_perturb.callbacks.run import normalisation, run_folder
from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import rank, sum_over_ranks, world_size
from lightning_perturb.figures import robustness_curve, save

Stage = Literal["val", "test"]


class AttackedEvaluation(Callback):
    """Attacks the samples of validation and test, and logs the accuracy that is left [tax Table 19].

    Logs ``val/robust_acc`` and ``test/robust_acc``: the share of samples that are classified right as they are and
    after every try of the attack. Works in ``fit``, ``validate`` and ``test``, with every single-label method, which is
    attacked as it predicts (with what it adds to the logits after training), and with modules of other projects that
    return logits from ``forward``. The attack runs in evaluation mode and the trainer's precision and leaves no trace:
    training is the same to the bit with it and without it.

    Sizes are pixel values of [0, 1], whatever the normalisation, which the data module tells; for data of another
    project the attack's ``space`` says it. Starts are drawn for each sample from (``seed``, index), so that they are
    the same on any number of devices and after any resume. Samples are counted over all devices; the loaders of this
    package serve each once, where others repeat some to fill up the last batches of the devices.

    An attack of 20 steps costs some 60 times the evaluation that it goes with: ``every_n_epochs`` and ``max_samples``
    make it rarer and smaller.

    Args:
        attack: The attack; None takes PGD with 20 steps inside 8/255.
        stages: Which evaluations are attacked: ``val``, ``test``, or both.
        every_n_epochs: In ``fit``, attack the validation of every so manieth epoch, and of the last one.
        max_samples: Attack so many samples of each loader, drawn once from ``seed`` (the first ones of a loader of
            another project, shared by the devices); None attacks all.
        name: Under which name the accuracy is logged, behind ``val/`` and ``test/``: two attacks in one run need two.
        seed: Seed of the attack's starts, and of the samples that are chosen.

    Raises:
        ValueError: If a number is not positive, or a stage is unknown. When a run starts: if the method is for several
            labels a sample, or another callback logs under the same name. In evaluation: if inputs are no float tensor,
            or no pixels where the attack's ``space`` keeps them in the range of pixels.
    """

    def __init__(
        self,
        attack: Attack | None = None,
        stages: Sequence[Stage] = ("val", "test"),
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        name: str = "robust_acc",
        seed: int = 0,
    ) -> None:
        for stage in stages:
            check_choice("stages", stage, ("val", "test"))
        check_positive("every_n_epochs", every_n_epochs)
        if max_samples is not None:
            check_positive("max_samples", max_samples)
        self.attack = PGD() if attack is None else attack
        self.stages = tuple(stages)
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self.name = name
        self.seed = seed
        self._counts: Tensor | None = None
        self._chosen: list[Tensor | None] = []
        self._left: dict[int, int] = {}

    def attacks(self) -> list[Attack]:
        """The attacks that the samples must stand, one after the other."""
        return [self.attack]

    def names(self) -> set[str]:
        """What is reported, to be told from what other callbacks report."""
        return {self.name}

    def log_counts(self, pl_module: LightningModule, stage: Stage, counts: list[int]) -> None:
        """Logs what was counted.

        Args:
            pl_module: The module.
            stage: ``val`` or ``test``.
            counts: Samples; of them, those classified right as they are, and under each attack.
        """
        total, _, robust = counts
        pl_module.log(f"{stage}/{self.name}", robust / total, prog_bar=stage == "val", sync_dist=True)

    def finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage, counts: list[int]) -> None:
        """What else is made of the counts, on all ranks; nothing here."""

    # the life of a run --------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at the method and at the other callbacks before anything is evaluated."""
        if getattr(pl_module, "multi_label", False):
            raise ValueError(
                f"{type(self).__name__} turns one class into another, but {type(pl_module).__name__} predicts several "
                "labels a sample. Leave the callback away."
            )
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if other is not self and isinstance(other, AttackedEvaluation) and set(other.stages) & set(self.stages):
                shared = sorted(other.names() & self.names())
                if shared:
                    raise ValueError(
                        f"{type(other).__name__} and {type(self).__name__} both report {shared[0]!r}. Give one of them "
                        "another name."
                    )
        if str(trainer.precision) == "16-mixed":
            warnings.warn(
                "precision='16-mixed' rounds the small gradients of well-learnt samples to 0, so that the attack fails "
                "where it should not. Evaluate with bf16-mixed or 32-true.",
                stacklevel=2,
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count, if this validation is attacked."""
        self._begin(trainer, "val", trainer.val_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count."""
        self._begin(trainer, "test", trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attacks a batch."""
        self._add(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attacks a batch."""
        self._add(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy."""
        self._end(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy."""
        self._end(trainer, pl_module, "test")

    # counting -----------------------------------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, stage: Stage, loaders: Any) -> None:
        self._counts = None
        if stage not in self.stages or not self._due(trainer):
            return
        self._counts = torch.zeros(2 + len(self.attacks()), dtype=torch.int64)
        self._chosen = [self._choice(loader) for loader in CombinedLoader(loaders, "sequential").flattened]
        self._left = {}

    def _due(self, trainer: Trainer) -> bool:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return True
        done = trainer.current_epoch + 1
        return done % self.every_n_epochs == 0 or done == trainer.max_epochs

    def _choice(self, loader: Any) -> Tensor | None:
        """The indices of the samples that are attacked; None where all are, or the loader does not say them."""
        positions = getattr(getattr(loader, "sampler", None), "positions", None)
        if self.max_samples is None or not isinstance(positions, Tensor):
            return None
        order = keyed_random.uniform(self.seed, "attacked samples", 0, positions).argsort(stable=True)
        return positions[order[: self.max_samples]]

    def _add(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, loader: int) -> None:
        if self._counts is None:
            return
        batch = Batch.of(batch)
        keys = batch.index
        if keys is None:
            keys = torch.arange(len(batch), device=batch.y.device) + (batch_idx * world_size() + rank()) * (1 << 32)
        with trainer.precision_plugin.forward_context():
            right = right_under(
                self.attacks(), module, batch, keys, normalisation(trainer), self.seed, self._rows(batch, loader)
            )
        counts = torch.cat([right.new_tensor([len(right)], dtype=torch.int64), right.sum(0)])
        self._counts = self._counts.to(counts.device) + counts

    def _rows(self, batch: Batch, loader: int) -> Tensor | None:
        """Which samples of a batch are attacked, if not all."""
        if self.max_samples is None:
            return None
        chosen = self._chosen[loader]
        if chosen is not None and batch.index is not None:
            return torch.isin(batch.index, chosen.to(batch.index.device)).nonzero()[:, 0]
        share, more = divmod(self.max_samples, world_size())
        left = self._left.setdefault(loader, share + (rank() < more))
        self._left[loader] = max(left - len(batch), 0)
        return torch.arange(min(left, len(batch)), device=batch.y.device)

    def _end(self, trainer: Trainer, module: LightningModule, stage: Stage) -> None:
        if self._counts is None:
            return
        counts = [int(count) for count in sum_over_ranks(self._counts.to(module.device))]
        self._counts = None
        if counts[0]:
            self.log_counts(module, stage, counts)
            self.finish(trainer, module, stage, counts)


class RobustnessCurve(AttackedEvaluation):
    """Draws the accuracy under attack against the radius, of test (or validation).

    The attack runs at every radius, from the smallest on, each time against the samples that stood the smaller ones:
    what succeeds inside a small ball does so inside a larger one. Logs ``test/robust_acc_0.03137`` and so on, and
    writes ``robust_acc_test.png`` into the folder of the run's logs and TensorBoard; of a tested checkpoint
    ``robust_acc_test_<checkpoint>.png``. Nothing is drawn under ``fast_dev_run``.

    Attributes:
        curve: Radii, from 0 on, and the accuracy at each, of the last evaluation; empty before.
        paths: The figures that were written.

    Args:
        attack: The attack, of whose own radius the steps are a share; None takes PGD with 20 steps.
        radii: The radii, in the units of the attack's ``space``: pixel values of [0, 1].
        stages: Which evaluations are attacked.
        folder: Where the figures go; None takes the folder of the run's logs.
        **kwargs: ``every_n_epochs``, ``max_samples``, ``name`` and ``seed`` of :class:`AttackedEvaluation`.

    Raises:
        ValueError: As there; and if ``radii`` is empty or holds a number that is not above 0.
    """

    def __init__(
        self,
        attack: Attack | None = None,
        radii: Sequence[float] = (2 / 255, 4 / 255, 8 / 255, 16 / 255),
        stages: Sequence[Stage] = ("test",),
        folder: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(attack, stages, **kwargs)
        if not radii:
            raise ValueError("radii=[] draws nothing. Give at least one radius.")
        for radius in radii:
            check_positive("radii", radius)
        self.radii = sorted(set(radii))
        self.folder = folder
        self.curve: dict[float, float] = {}
        self.paths: list[Path] = []

    def attacks(self) -> list[Attack]:
        """The attack at each radius."""
        return [self.attack.at(radius) for radius in self.radii]

    def names(self) -> set[str]:
        """The numbers, and the figure."""
        return {f"{self.name}_{radius:.4g}" for radius in self.radii} | {f"{self.name}.png"}

    def log_counts(self, pl_module: LightningModule, stage: Stage, counts: list[int]) -> None:
        """Logs the accuracy at each radius."""
        total, clean, *robust = counts
        self.curve = {0.0: clean / total} | {r: n / total for r, n in zip(self.radii, robust, strict=True)}
        for radius in self.radii:
            pl_module.log(f"{stage}/{self.name}_{radius:.4g}", self.curve[radius], sync_dist=True)

    def finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage, counts: list[int]) -> None:
        """Draws the figure."""
        folder = run_folder(trainer) if self.folder is None else Path(self.folder)
        if not trainer.is_global_zero or trainer.fast_dev_run or trainer.sanity_checking:  # type: ignore[attr-defined]
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        checkpoint = None if fitting or trainer.ckpt_path is None else Path(str(trainer.ckpt_path)).stem
        name = "_".join(filter(None, (self.name, stage, checkpoint)))
        pixels = self.attack.space.units == "pixel"
        figure = robustness_curve({type(pl_module).__name__: self.curve}, self.attack.norm, pixels)
        self.paths.append(save(figure, folder / f"{name}.png", trainer.loggers, name, trainer.global_step))
