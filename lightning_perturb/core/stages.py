"""The base of methods whose second stage is a training of its own, on what the first has learned."""

import copy
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_perturb.core.deferred import DeferredModule
from lightning_perturb.core.held import HoldingModule
from lightning_perturb.core.rates import options_of, put_options


class StagedLR(LRScheduler):
    """One schedule of the learning rate, and from :meth:`begin_second` on another, from the optimizer's first options.

    Args:
        optimizer: The optimizer, at its first rates.
        first: Makes the schedule of the first stage; None keeps the rates.
        second: Makes the schedule of the second stage; None keeps the rates.

    Raises:
        ValueError: If a schedule waits for a plateau of a metric.
    """

    def __init__(
        self, optimizer: Optimizer, first: LRSchedulerCallable | None, second: LRSchedulerCallable | None
    ) -> None:
        # without super().__init__: it would take a first step of a schedule, and there is none here
        self.optimizer = optimizer
        self.second = False
        # not the rates alone: some schedules move the momentum, too
        self._first = copy.deepcopy(options_of(optimizer))
        self._make_second = second
        self._schedule = _made("lr_scheduler", first, optimizer)

    def step(self, epoch: int | None = None) -> None:
        """One step of the schedule of this stage."""
        if self._schedule is not None:
            self._schedule.step()

    def get_last_lr(self) -> list[Any]:
        """The rates as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def begin_second(self) -> None:
        """Puts the first options back and begins the second schedule."""
        self.second = True
        put_options(self.optimizer, copy.deepcopy(self._first))
        self._schedule = _made("second_scheduler", self._make_second, self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedules stand."""
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return {"second": self.second, "first": self._first, "schedule": schedule}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from :meth:`state_dict`; the optimizer has its options from its own."""
        self._first = state_dict["first"]
        if state_dict["second"]:
            current = options_of(self.optimizer)
            self.begin_second()
            put_options(self.optimizer, current)
        if self._schedule is not None and state_dict["schedule"] is not None:
            self._schedule.load_state_dict(state_dict["schedule"])


def _made(name: str, maker: LRSchedulerCallable | None, optimizer: Optimizer) -> LRScheduler | None:
    made = None if maker is None else maker(optimizer)
    if isinstance(made, ReduceLROnPlateau):
        raise ValueError(
            f"{name}=ReduceLROnPlateau waits for a metric, but a method of two stages begins its second at a fixed "
            "epoch. Take a schedule by epochs or steps, such as CosineAnnealingLR."
        )
    return made


class TwoStageModule(HoldingModule, DeferredModule):
    """A method whose second stage, the phase ``deferred``, is a training of its own.

    The optimizer forgets its momentum there, and its options, the learning rate above all, are the first ones again.
    ``from_epoch=0`` has the second stage alone, for a network that is already trained.

    Args:
        second_scheduler: Makes the learning-rate schedule of the second stage, while ``lr_scheduler`` is that of the
            first; None keeps the optimizer's rate.
        **kwargs: Arguments of :class:`~lightning_perturb.core.held.HoldingModule` and
            :class:`~lightning_perturb.core.deferred.DeferredModule`.
    """

    training_only = ("second_scheduler",)

    def __init__(self, *args: Any, second_scheduler: LRSchedulerCallable | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.second_scheduler = second_scheduler

    def begin_second_stage(self) -> None:
        """Runs once, before the first batch of the second stage; all ranks must do the same."""

    def make_lr_scheduler(self, optimizer: Optimizer) -> Any:
        """The schedules of both stages in one."""
        return StagedLR(optimizer, self.lr_scheduler, self.second_scheduler)

    def start_epoch(self) -> None:
        """Begins the second stage in its first epoch."""
        super().start_epoch()
        if self.phase != "deferred":
            return
        (config,) = self.trainer.lr_scheduler_configs
        schedule = config.scheduler
        assert isinstance(schedule, StagedLR)
        if schedule.second:
            return
        (optimizer,) = self.trainer.optimizers
        optimizer.state.clear()
        schedule.begin_second()
        self.begin_second_stage()
