"""The base of every method: one training loss with four places where a term can be added to it [tax 1, 4-9]."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lightning_perturb.checks import check_choice
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core import resume
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import rank
from lightning_perturb.core.evaluated import EvaluatedModule
from lightning_perturb.core.groups import ClassGroups
from lightning_perturb.core.hyperparameters import drop_linked, left_out, live_arguments, plain_data
from lightning_perturb.core.logits import logits_in
from lightning_perturb.core.modes import frozen_statistics
from lightning_perturb.core.needs import DataFacts, Needs
from lightning_perturb.core.state import StateMixin
from lightning_perturb.core.taxonomy import Coordinates
from lightning_perturb.functional.cross_entropy import cross_entropy

CHECKPOINT_KEY = "lightning_perturb"
_PARTS = {"class": "classes", "domain": "domains", "group": "groups"}


def default_optimizer(params: Any) -> torch.optim.Optimizer:
    """The papers' optimizer for images: SGD with learning rate 0.1, momentum 0.9 and weight decay 5e-4."""
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-4)


class PerturbationModule(StateMixin, EvaluatedModule):
    """One training loss with four places where a term can be added to it.

    ``x + Δx  ->  u = f(x) + Δu  ->  l(softmax(u), y + Δy)  ->  l + Δl  ->  mean``. With nothing overridden it is
    cross-entropy. A method overrides the hook of its target and states its coordinates and needs.

    Args:
        net: The network: maps ``x`` to logits ``[B, num_classes]`` (a tensor, a tuple that starts with it, or an
            object with ``.logits``).
        num_classes: Number of classes.
        optimizer: Makes the optimizer from the parameters. Default: SGD, lr 0.1, momentum 0.9, weight decay 5e-4.
        lr_scheduler: Makes the learning-rate scheduler from the optimizer; None keeps the rate.
        lr_interval: Whether the scheduler moves every ``epoch`` or every ``step``.
        warmup_epochs: Epochs of plain cross-entropy before the method begins.
        channels_last: Keep the network and images in the channels-last memory format (faster, above all with
            ``precision: bf16-mixed``).
        seed: Seed of the draws that belong to samples (attack starts, mixing). None takes the seed given to
            ``seed_everything``, or 0.
        head_from: Training samples from which a class counts as head in ``acc_head``, which evaluation reports where
            classes are of several groups. 101: "many-shot" is published as more than 100.
        tail_below: Training samples below which it counts as tail in ``acc_tail``; 20, as "few-shot" is published.
    """

    coordinates: ClassVar[Coordinates] = Coordinates()
    needs: Needs = Needs()
    #: names of arguments without which a checkpoint still opens
    training_only: ClassVar[tuple[str, ...]] = ()
    #: whether a sample has several labels, one 0 or 1 for each class, instead of one class id
    multi_label: ClassVar[bool] = False

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = default_optimizer,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        warmup_epochs: int = 0,
        channels_last: bool = False,
        seed: int | None = None,
        *,
        head_from: int = 101,
        tail_below: int = 20,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes} leaves nothing to tell apart. Give at least 2.")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs={warmup_epochs} is negative. Give 0 or more epochs.")
        check_choice("lr_interval", lr_interval, ("epoch", "step"))
        frame = sys._getframe()
        self.save_hyperparameters(ignore=left_out(frame))
        plain_data(self.hparams)
        # the copy that loggers write down
        plain_data(self._hparams_initial)  # type: ignore[arg-type]
        drop_linked(self.hparams, net)
        self._live_arguments = [name for name in live_arguments(frame) if name not in self.training_only]
        self.net = net
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        self.warmup_epochs = warmup_epochs
        self.channels_last = channels_last
        self.seed = seed
        self.groups = ClassGroups(head_from, tail_below)
        self.facts: DataFacts | None = None
        self._draw_seed = seed or 0
        self._started_epoch = -1
        self._resuming = False
        self._batch_idx = 0
        self._first_rate = 0.0
        self._rank_tensors: dict[str, Tensor] = {}
        self._told = {"perturbation_norm"}
        self._asked: frozenset[str] = frozenset()
        self.add_state("class_counts", torch.zeros(num_classes, dtype=torch.int64))
        # of these evaluation makes its groups, and nothing else: a method knows given labels alone
        self.add_state("true_counts", torch.zeros(num_classes, dtype=torch.int64))
        # given labels by class and domain, where the data has domains
        self.add_open_state("group_counts")
        self.register_load_state_dict_pre_hook(_keep_counts)  # type: ignore[no-untyped-call]
        self._add_metrics()
        if channels_last:
            self.net.to(memory_format=torch.channels_last)

    # the hooks of the taxonomy ------------------------------------------------------------------------------------

    def perturb_input(self, batch: Batch) -> Batch:
        """x + Δx [tax 4]: a batch with another input; may fill ``batch.extra``."""
        return batch

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """The only place where the network is called.

        Args:
            call: Runs the network, or a functional version of it with other parameters.
            batch: The batch after :meth:`perturb_input`.

        Returns:
            At least ``logits`` ``[B, C]``; whatever else the loss of the method reads.
        """
        return {"logits": self.run(call, batch.view)}

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + Δu [tax 5]."""
        return logits

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """y + Δy [tax 6]: class ids ``[B]`` or soft labels ``[B, C]``; sees the raw logits."""
        return batch.y

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The loss l of each sample ``[B]``."""
        return cross_entropy(logits, target)

    def perturb_loss(self, loss: Tensor, logits: Tensor, batch: Batch) -> Tensor:
        """l + Δl [tax 7], ``[B]``; sees the raw logits."""
        return loss

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mean perturbed loss.

        It reads the network through the outputs alone and changes no state; a method may leave what it found (the hard
        set, norms) in ``batch.extra`` for the same batch.
        """
        raw = outputs["logits"]
        if self.phase == "warmup":
            return self.plain_loss(raw, batch.y).mean()
        logits = self.perturb_logits(raw, outputs, batch)
        target = self.perturb_target(raw, batch)
        losses = self.sample_loss(logits, target, batch)
        losses = self.perturb_loss(losses, raw, batch)
        self.tell(batch, "sample_loss", losses)
        return losses.mean()

    def plain_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss with nothing perturbed ``[B]``, which warm-up trains on and evaluation reports: cross-entropy."""
        return cross_entropy(logits, target)

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Writes per-sample and per-class state; runs once per training batch, after its loss, without gradient."""

    def start_epoch(self) -> None:
        """Runs before the first batch of an epoch: once, also where a run is resumed inside the epoch.

        Lightning's own epoch hooks run before or after a checkpoint is written, depending on what triggered it.
        """

    # phases -------------------------------------------------------------------------------------------------------

    def phases(self) -> list[tuple[int, str]]:
        """(first epoch, name) of each phase, in order; a phase that starts where the next does is empty."""
        return [(0, "warmup"), (self.warmup_epochs, "main")]

    @property
    def phase(self) -> str:
        """Name of the phase of the current epoch."""
        epoch = self.current_epoch
        return [name for first, name in self.phases() if first <= epoch][-1]

    # draws and state ----------------------------------------------------------------------------------------------

    def sample_keys(self, batch: Batch) -> Tensor:
        """One integer per sample that names it in random draws: its index, or its place where no index came.

        A sample that comes again in an epoch has another one each time, which the data gives as ``sample_key``.
        """
        if "sample_key" in batch.extra:
            return batch.extra["sample_key"]
        if batch.index is not None:
            return batch.index
        place = torch.arange(len(batch), device=batch.y.device) + rank() * len(batch)
        return place + (self._batch_idx + 1) * (1 << 32)

    def uniform(self, stream: str, batch: Batch, *shape: int) -> Tensor:
        """Uniform numbers ``[B, *shape]`` of these samples in this epoch, equal on any rank and after any resume."""
        return keyed_random.uniform(self._draw_seed, stream, self.current_epoch, self.sample_keys(batch), *shape)

    def normal(self, stream: str, batch: Batch, *shape: int) -> Tensor:
        """Standard normal numbers ``[B, *shape]``, otherwise like :meth:`uniform`."""
        return keyed_random.normal(self._draw_seed, stream, self.current_epoch, self.sample_keys(batch), *shape)

    def indices(self, batch: Batch) -> Tensor:
        """The samples' positions in the full original training set ``[B]``.

        Raises:
            ValueError: If the batch carries none.
        """
        if batch.index is None:
            raise ValueError(
                f"{type(self).__name__} keeps state per training sample and needs each sample's index. Use a "
                "lightning_perturb data module, put Wrap(datamodule=...) around yours, or yield (x, y, index)."
            )
        return batch.index

    def domains(self, batch: Batch) -> Tensor:
        """The samples' domains ``[B]``, 0..D-1.

        Raises:
            ValueError: If the batch carries none.
        """
        domain = batch.extra.get("domain")
        if domain is None or domain.shape != batch.y.shape[:1] or domain.is_floating_point():
            found = "none" if domain is None else f"{domain.dtype} of shape {tuple(domain.shape)}"
            raise ValueError(
                f"{type(self).__name__} needs the domain of each sample, as ids [B], but the batch has {found}. Use "
                "data with domains, or yield {'x': ..., 'y': ..., 'domain': ...}."
            )
        return domain.long()

    def tell(self, batch: Batch, name: str, values: Tensor) -> None:
        """Puts numbers of the batch's samples ``[B]`` into what the step returns, where callbacks read them.

        Args:
            batch: The batch; ``batch.extra`` has them, too.
            name: Their name: words, with slashes between. ``hyperparameter/<name>`` is for what a method learns or
                chooses for each sample.
            values: The numbers; no gradient flows.
        """
        self._told.add(name)
        batch.extra[name] = values.detach()

    def asked(self, name: str) -> bool:
        """Whether a callback of this run has ``name`` in its ``asks``: what costs something is told then alone."""
        return name in self._asked

    def keep_on_rank(self, name: str, tensor: Tensor) -> None:
        """Keeps a tensor of this rank alone until the next step; it is in the checkpoint."""
        self._rank_tensors[name] = tensor.detach()

    def kept_on_rank(self, name: str) -> Tensor | None:
        """What :meth:`keep_on_rank` kept, on this module's device."""
        tensor = self._rank_tensors.get(name)
        return None if tensor is None else tensor.to(self.device)

    # the loss with and without the perturbation -------------------------------------------------------------------

    @property
    def moves_input(self) -> bool:
        """Whether the training logits are those of perturbed inputs, so that the plain loss takes another pass."""
        return "feature" in self.coordinates.target

    def comparable_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The plain loss as :meth:`compared` gives it: ``[B]``, or ``[B, C]`` where every class has one."""
        return self.plain_loss(logits, target)

    def compared(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor] | None:
        """The losses of a step with nothing perturbed, l, and as they were minimised, l'.

        Told to callbacks that ask for ``compared``, as ``compared/label``, ``compared/plain`` and
        ``compared/perturbed``. The network is that of the same step, in the same mode.

        Args:
            outputs: What :meth:`outputs` gave.
            batch: The batch after its loss.

        Returns:
            Labels, l and l' ``[B]``; or None where nothing is perturbed, as in warm-up.
        """
        perturbed = batch.extra.get("sample_loss")
        if perturbed is None:
            return None
        plain = batch.extra.get("clean_loss")
        return batch.y, self.comparable_loss(outputs["logits"], batch.y) if plain is None else plain, perturbed

    def _clean_loss(self, batch: Batch) -> Tensor:
        """The plain loss of inputs as they came, by a pass with the training forward's dropout that leaves no trace."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), frozen_statistics(self.net), torch.random.fork_rng(devices):
            loss = self.comparable_loss(self.run(self.net, batch.view), batch.y)
        # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
        torch.clear_autocast_cache()
        return loss

    # running the network ------------------------------------------------------------------------------------------

    def run(self, call: Callable[..., Any], x: Any) -> Tensor:
        """Logits ``[B, C]`` of ``call`` on an input.

        Raises:
            ValueError: If the network's output is not ``[B, num_classes]``.
        """
        if isinstance(x, Mapping):
            out = call(**x)
        else:
            if self.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            out = call(x)
        logits = logits_in(out)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != self.num_classes:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"net={type(self.net).__name__} gives {shape} where num_classes={self.num_classes} asks for "
                f"(B, {self.num_classes}). Give the network as many outputs as there are classes."
            )
        return logits

    def forward(self, x: Any) -> Tensor:
        """Logits ``[B, C]``."""
        return self.run(self.net, x)

    # training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step; what it returns is what recorders read."""
        batch = self._start_step(batch, batch_idx)
        outputs = self.outputs(self.net, batch)
        loss = self.loss(outputs, batch)
        self._check_finite(loss, batch_idx)
        with torch.no_grad():
            self.update_state(outputs, batch)
        return self._finish_step(loss, outputs, batch)

    def _start_step(self, batch: Any, batch_idx: int) -> Batch:
        self._batch_idx = batch_idx
        started = self._checked(Batch.of(batch).copy())
        if self._started_epoch != self.current_epoch:
            self.start_epoch()
            self._started_epoch = self.current_epoch
        if self.phase == "warmup":
            return started
        if self.asked("compared") and self.moves_input:
            started.extra["clean_loss"] = self._clean_loss(started)
        return self.perturb_input(started)

    def _finish_step(self, loss: Tensor, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Any]:
        logits = outputs["logits"].detach()
        size = len(batch)
        detached = loss.detach()
        self.log("train/loss", detached, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        if self.asked("compared"):
            with torch.no_grad():
                found = self.compared(outputs, batch)
            for name, values in zip(("label", "plain", "perturbed"), found or (), strict=False):
                self.tell(batch, f"compared/{name}", values)
        result: dict[str, Any] = {"loss": loss, "logits": logits, "y": batch.y, "index": batch.index}
        result.update((name, batch.extra[name].detach()) for name in self._told & batch.extra.keys())
        return result

    def _checked(self, batch: Batch) -> Batch:
        views = len(batch.x) if isinstance(batch.x, tuple) else 1
        if views < self.needs.views:
            raise ValueError(
                f"{type(self).__name__} needs {self.needs.views} augmented views of each sample, the batch has {views}."
                " Use a lightning_perturb data module, or yield ((view_1, view_2), y)."
            )
        if views > max(self.needs.views, 1) and self.phase != "warmup":
            raise ValueError(
                f"The batch has {views} inputs, which are read as views of the same samples; {type(self).__name__} "
                f"uses {self.needs.views}. Yield one tensor, or a mapping for a network of several inputs."
            )
        batch.y = self._as_target(batch.y)
        if self.needs.domains:
            batch.extra["domain"] = self.domains(batch)
        # ids outside 0..C-1 would be an opaque device fault on a GPU; there one epoch sees every label
        if batch.y.device.type == "cpu" or self.current_epoch == 0:
            self._check_labels(batch.y, "A label")
        return batch

    def _check_finite(self, loss: Tensor, batch_idx: int) -> None:
        # a look makes the host wait for the device; what is not finite stays so, through the weights
        if loss.device.type != "cpu" and batch_idx % max(self.trainer.log_every_n_steps, 1):  # type: ignore[attr-defined]
            return
        if not torch.isfinite(loss.detach()):
            raise FloatingPointError(
                f"{type(self).__name__}: the training loss is {float(loss.detach())} in epoch {self.current_epoch}, "
                f"batch {batch_idx}. Lower the learning rate, clip gradients (gradient_clip_val), or use "
                "precision bf16-mixed instead of 16-mixed; the last checkpoint is untouched."
            )

    def trained_parameters(self) -> list[Any]:
        """What the optimizer moves: all parameters, or groups of them with options of their own.

        Beside the optimizer's options a group may have ``lr_factor``, its rate over that of the others.
        """
        return list(self.parameters())

    def configure_optimizers(self) -> Any:
        """The injected optimizer over :meth:`trained_parameters`, and its scheduler."""
        optimizer = self.optimizer(self.trained_parameters())
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_factor", 1.0)
        # some schedulers overwrite `initial_lr` with another rate
        self._first_rate = float(optimizer.param_groups[0]["lr"])
        scheduler = self.make_lr_scheduler(optimizer)
        if scheduler is None:
            return optimizer
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.lr_interval}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = getattr(scheduler, "monitor", "val/loss")
        return {"optimizer": optimizer, "lr_scheduler": config}

    def make_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        """The scheduler of the learning rate, None for none."""
        return None if self.lr_scheduler is None else self.lr_scheduler(optimizer)

    # life cycle ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Takes sizes and class counts from the data, before anything is restored."""
        if stage != "fit":
            return
        self._draw_seed = self.seed if self.seed is not None else int(os.environ.get("PL_GLOBAL_SEED", "0"))
        self.facts, self._sizes_known, self._resuming = None, False, False
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        self._asked = frozenset(name for callback in callbacks for name in getattr(callback, "asks", ()))
        if not self.training:
            # as lightning_perturb.load gives it; Lightning would train it with batch norm and dropout switched off
            self.train()
        self._refuse_half_precision()
        if self.trainer.global_step == 0:
            # a module that another trainer has trained starts anew; what a resumed run had is loaded after this
            self.reset_state()
            self._started_epoch, self._rank_tensors = -1, {}
        facts = getattr(self.trainer.datamodule, "facts", None)  # type: ignore[attr-defined]
        if not isinstance(facts, DataFacts):
            if self.needs.balanced_from is not None:
                raise ValueError(
                    f"{type(self).__name__} trains on batches of balanced {_PARTS[self.needs.balanced_by]}, which a "
                    "loader of your own does not draw. Use a lightning_perturb data module, or put "
                    "Wrap(datamodule=...) around yours."
                )
            return
        if facts.num_classes != self.num_classes:
            raise ValueError(
                f"num_classes={self.num_classes} of {type(self).__name__} disagrees with the data, which has "
                f"{facts.num_classes} classes. Leave num_classes away on the command line: it is linked to the data."
            )
        self._check_kind_of(facts)
        if self.needs.domains and not facts.num_domains:
            raise ValueError(
                f"{type(self).__name__} trains on samples of several domains, of which the data tells none. Use data "
                "with domains, such as ColoredDigits or Waterbirds, Arrays with domains, or Wrap with domain_key."
            )
        self.facts = facts
        take_vocabulary = getattr(self.net, "take_vocabulary", None)
        if facts.vocabulary is not None and callable(take_vocabulary):
            # before anything is restored: what a checkpoint has learned goes over word vectors from a file
            take_vocabulary(facts.vocabulary)
        self.class_counts.copy_(torch.from_numpy(facts.class_counts))
        self.true_counts.zero_()
        if facts.true_counts is not None:
            self.true_counts.copy_(torch.from_numpy(facts.true_counts))
        groups = torch.empty(0) if facts.group_counts is None else torch.from_numpy(facts.group_counts)
        self.set_open_state("group_counts", groups.to(self.class_counts.device))
        self.size_sample_state(facts.num_samples)
        self._sizes_known = True

    def on_validation_start(self) -> None:
        """Refuses texts in other ids than those that the network was trained with."""
        # in a fit, setup has compared them
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._check_words()

    def on_test_start(self) -> None:
        """As before a validation."""
        self._check_words()

    def on_predict_start(self) -> None:
        """As before a validation."""
        self._check_words()

    def _check_words(self) -> None:
        # not in setup: a checkpoint may give data and network their words after it
        check = getattr(self.net, "check_vocabulary", None)
        words = getattr(self.trainer.datamodule, "vocabulary", None) if callable(check) else None  # type: ignore[attr-defined]
        if callable(check) and isinstance(words, tuple):
            check(words)

    def _check_kind_of(self, facts: DataFacts) -> None:
        if facts.multi_label and not self.multi_label:
            raise ValueError(
                f"{type(self).__name__} takes one class id of each sample, but the data has several labels a sample "
                "(multi-hot). Use a multi-label method, such as BinaryCrossEntropy, RBCE or MultiLabelLPL."
            )
        if self.multi_label and not facts.multi_label:
            raise ValueError(
                f"{type(self).__name__} is for several labels a sample (multi-hot), but the data has one class id for "
                "each. Use a single-label method, such as CrossEntropy, or multi-label data, such as MultiLabelDigits."
            )

    def _refuse_half_precision(self) -> None:
        precision = str(self.trainer.precision)
        if precision in ("16-true", "bf16-true"):
            raise ValueError(
                f"precision={precision!r} keeps state and metrics in half precision, where sums stop growing. "
                "Use precision='bf16-mixed'."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning leaves out: the class, every rank's random state and rank-local tensors."""
        cls = type(self)
        checkpoint[CHECKPOINT_KEY] = {
            "class": f"{cls.__module__}.{cls.__qualname__}",
            "live": self._live_arguments,
            "draw_seed": self._draw_seed,
            "started_epoch": self._started_epoch,
            "ranks": resume.save_ranks(self._rank_tensors),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them, when training goes on from the checkpoint."""
        trainer = self._trainer
        self._resuming = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        saved = checkpoint.get(CHECKPOINT_KEY)
        if self._resuming and saved is not None:
            self._draw_seed = saved["draw_seed"]
            self._started_epoch = saved["started_epoch"]
            self._rank_tensors = resume.restore_rank(saved["ranks"]) or {}


def _keep_counts(module: PerturbationModule, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Leaves counts as they are where a checkpoint has none: the first ones had not."""
    for name in ("true_counts", "group_counts"):
        state_dict.setdefault(f"{prefix}{name}", getattr(module, name))
