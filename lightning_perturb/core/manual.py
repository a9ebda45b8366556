"""The base of methods that make the steps of the network themselves."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_perturb.checks import check_positive
from lightning_perturb.core.distributed import broadcast_from_first
from lightning_perturb.core.module import PerturbationModule


class ManualModule(PerturbationModule):
    """A method that makes several steps in a batch, or looks at gradients before it makes one.

    Optimization is manual in Lightning's sense: Trainer(gradient_clip_val, accumulate_grad_batches) and precision 16
    are refused, bf16-mixed and 32 work, on a single device and with ``strategy="ddp"``.

    Args:
        gradient_clip_val: Largest norm of the network's gradient in a step that moves it; None does not clip.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If it is not above 0. At the start of a fit: if the Trainer's settings do not go with manual
            optimization.
    """

    def __init__(self, *args: Any, gradient_clip_val: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if gradient_clip_val is not None:
            check_positive("gradient_clip_val", gradient_clip_val)
        self.automatic_optimization = False
        self.gradient_clip_val = gradient_clip_val
        self._monitor = "val/loss"

    # steps --------------------------------------------------------------------------------------------------------

    def _moved(self, optimizer: Any) -> list[nn.Parameter]:
        """What an optimizer moves."""
        return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]

    def _real_step(self, loss: Tensor, optimizer: Any) -> None:
        """The one step of a batch that Lightning counts, on a loss."""
        moved = self._moved(optimizer)
        optimizer.zero_grad()
        self.manual_backward(loss, inputs=moved)
        self._clip(moved)
        optimizer.step()

    def _clip(self, moved: list[nn.Parameter]) -> None:
        if self.gradient_clip_val is not None:
            for together in self.clipped_together(moved):
                nn.utils.clip_grad_norm_(together, self.gradient_clip_val)

    def clipped_together(self, moved: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Which of the parameters that a step moves share one gradient norm: all."""
        return [moved]

    def _finish_steps(self) -> None:
        """What Lightning does after a step of its own."""
        # manual optimization switches DDP's own broadcast of batch-norm statistics off
        broadcast_from_first(b for b in self.net.buffers() if b.is_floating_point())
        self._move_schedulers(at_epoch_end=bool(self.trainer.is_last_batch))

    # optimizers ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizer of the network with its scheduler."""
        configured = super().configure_optimizers()
        if not isinstance(configured, dict):
            configured = {"optimizer": configured}
        else:
            scheduler = configured["lr_scheduler"]
            self._monitor = scheduler.pop("monitor", self._monitor)
            if self.lr_interval == "step" and isinstance(scheduler["scheduler"], ReduceLROnPlateau):
                raise ValueError(
                    "lr_interval='step' does not go with ReduceLROnPlateau, whose metric comes once an epoch. Set "
                    "lr_interval to epoch."
                )
        return configured

    def _move_schedulers(self, at_epoch_end: bool) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                continue
            if config.interval == "step" or at_epoch_end:
                config.scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Moves a scheduler that waits for a metric."""
        super().on_train_epoch_end()
        for config in self.trainer.lr_scheduler_configs:
            if not isinstance(config.scheduler, ReduceLROnPlateau):
                continue
            metric = self.trainer.callback_metrics.get(self._monitor)
            if metric is not None:
                config.scheduler.step(metric)
            elif not self.trainer.fit_loop.restarting:
                raise ValueError(
                    f"ReduceLROnPlateau waits for {self._monitor!r}, which is not logged. Give the data a validation "
                    f"set (val_size), or monitor one of: {', '.join(sorted(self.trainer.callback_metrics))}."
                )

    # life cycle ---------------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """None; checks the Trainer's settings here, before Lightning does so in words of its own."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._check_trainer(self.trainer)
        return super().configure_callbacks()

    def _check_trainer(self, trainer: Trainer) -> None:
        name = type(self).__name__
        if trainer.gradient_clip_val:
            raise ValueError(
                f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) does not reach the manual optimization of "
                f"{name}. Give gradient_clip_val={trainer.gradient_clip_val} to {name} instead."
            )
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) does not go with {name}, whose "
                "own steps need the whole batch. Raise batch_size instead."
            )
        if str(trainer.precision).startswith("16"):
            raise ValueError(
                f"Trainer(precision={trainer.precision!r}) is too coarse for the gradients that {name} takes. Use "
                "bf16-mixed or 32."
            )
        strategy = trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise ValueError(
                f"Trainer(strategy=...) is {type(strategy).__name__}, which hides the parameters from the steps of "
                f"{name}. Use a single device or strategy='ddp'."
            )
