"""The base of every meta-learned method: its hyperparameters are learned on clean samples, by bilevel gradients."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_perturb.bilevel import Bilevel, Hypergradient, mean_over_ranks
from lightning_perturb.checks import check_choice
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.clean import CleanSamplesModule
from lightning_perturb.core.distributed import broadcast_from_first
from lightning_perturb.core.manual import ManualModule


def default_meta_optimizer(params: Any) -> torch.optim.Optimizer:
    """The papers' optimizer of meta parameters: Adam with learning rate 1e-3 and weight decay 1e-4."""
    return torch.optim.Adam(params, lr=1e-3, weight_decay=1e-4)


class MetaPerturbationModule(ManualModule, CleanSamplesModule):
    """A method whose loss contains meta parameters θ, learned on a stream of clean samples.

    Every ``meta_every`` batches: a virtual step of the network on the training batch, the gradient in θ of the
    cross-entropy on a meta batch after that step, and a step of θ. Then, in every batch, the real step of the network,
    which shares the training forward. θ is what a subclass declares by :meth:`add_meta`, and the numbers that
    ``meta_parameters`` names: ``class MetaLogPert(MetaPerturbationModule, LogPert)`` learns those of LogPert.

    Args:
        meta_optimizer: Makes the optimizer of θ from it. Default: Adam, lr 1e-3, weight decay 1e-4.
        meta_every: θ moves in every so manieth batch of an epoch, from the first on; in the others no meta batch is
            loaded.
        meta_parameters: Names of this method's numbers that are learned, each with the interval that it is kept in:
            ``{tau: [0, 4]}``.
        engine: ``forward`` (exact, without second-order graph), ``higher`` (the reference), ``central`` (differences,
            approximate), or ``auto``: forward where it can be, otherwise higher.
        look_ahead: Names of the network's modules or parameters that the virtual step moves (``[classifier]``):
            cheaper, and no longer the full gradient. None moves all.
        look_ahead_momentum: Let the virtual step use momentum and weight decay of the optimizer, an SGD; the papers
            look ahead by plain SGD.
        **kwargs: Arguments of :class:`~lightning_perturb.core.manual.ManualModule`, which makes the real step, and of
            the methods that it is combined with.

    Raises:
        ValueError: If an argument is out of range, or ``meta_parameters`` names no number of this method. At the start
            of a fit: if there is nothing to learn.
    """

    def __init__(
        self,
        *args: Any,
        meta_optimizer: OptimizerCallable = default_meta_optimizer,
        meta_every: int = 1,
        meta_parameters: dict[str, tuple[float, float]] | None = None,
        engine: Literal["auto", "forward", "higher", "central"] = "auto",
        look_ahead: list[str] | None = None,
        look_ahead_momentum: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if meta_every < 1:
            raise ValueError(f"meta_every={meta_every} is no interval. Give 1 (every batch) or more batches.")
        check_choice("engine", engine, ("auto", "forward", "higher", "central"))
        self.needs = replace(self.needs, meta_every=meta_every)
        self.meta_optimizer = meta_optimizer
        self.meta_every = meta_every
        self.engine = engine
        self.look_ahead = look_ahead
        self.look_ahead_momentum = look_ahead_momentum
        self._meta: dict[str, tuple[float, float]] = {}
        self._bilevels: dict[nn.Module, Bilevel] = {}
        for name, interval in (meta_parameters or {}).items():
            self._learn_number(name, *interval)

    # what is learned ----------------------------------------------------------------------------------------------

    def add_meta(self, name: str, value: nn.Module | Tensor, low: float = -math.inf, high: float = math.inf) -> None:
        """Declares a part of θ, an attribute of this module from then on.

        The optimizer of the network leaves it alone, and so does DDP: it is equal on all ranks by construction.

        Args:
            name: Name of the attribute.
            value: A network, or the first value of a tensor.
            low: Smallest value of a tensor; it is put back there after a step beyond.
            high: Largest value.
        """
        if isinstance(value, nn.Module):
            self.add_module(name, value)
            names = [f"{name}.{inner}" for inner in value.state_dict()]
        else:
            self.register_parameter(name, nn.Parameter(value.detach().clone()))
            # DDP looks for a parameter of the outermost module under the second name
            names = [name, f".{name}"]
        self._meta[name] = (low, high)
        self._ddp_params_and_buffers_to_ignore = [*self._ddp_params_and_buffers_to_ignore, *names]

    def _learn_number(self, name: str, low: float, high: float) -> None:
        value = self.__dict__.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(
                f"meta_parameters names {name!r}, which is {value!r} in {type(self).__name__}. Name arguments of the "
                "method that are plain numbers here."
            )
        if not low <= value <= high:
            raise ValueError(
                f"meta_parameters keeps {name!r} in [{low:g}, {high:g}], but it starts at {value:g}. Start it inside."
            )
        delattr(self, name)
        self.add_meta(name, torch.tensor(float(value)), low, high)

    def theta(self) -> list[nn.Parameter]:
        """θ, all that the meta optimizer moves."""
        return [parameter for name, parameter in self.named_parameters() if name.split(".")[0] in self._meta]

    def trained_parameters(self) -> list[nn.Parameter]:
        """All parameters but θ."""
        return [parameter for name, parameter in self.named_parameters() if name.split(".")[0] not in self._meta]

    def transient(self) -> list[Tensor]:
        """Tensors with gradient that are learned beside θ, but for one batch; made anew before each virtual step.

        None here. The loss reads them; what it is to read in the real step is for :meth:`move_transient` to say.
        """
        return []

    def move_transient(self, gradients: list[Tensor]) -> None:
        """Takes the gradients of what :meth:`transient` gave, before the real step."""

    #: what to do where nothing is learned
    remedy: ClassVar[str] = "Name numbers of the method in meta_parameters, or declare θ by add_meta."

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn from meta samples."""
        return bool(self.theta())

    # the hooks of the outer problem -------------------------------------------------------------------------------

    def meta_loss(self, call: Callable[..., Any], batch: Batch) -> Tensor:
        """The outer loss, a number: the plain loss (cross-entropy) on the meta batch.

        Args:
            call: Runs the network with other parameters.
            batch: A batch of clean samples.
        """
        return self.plain_loss(self.run(call, batch.view), batch.y).mean()

    @property
    def meta_learning(self) -> bool:
        """Whether θ is learned in the current epoch: not during warm-up, whose loss does not contain it.

        A method that learns in other epochs says in its ``needs`` from which on it reads meta batches.
        """
        return self.phase != "warmup"

    def reads_clean(self, batch_idx: int) -> bool:
        """Whether θ moves in this batch of the current epoch."""
        return self.meta_learning and batch_idx % self.meta_every == 0

    # training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Virtual step, meta step and real step; what it returns is what recorders read."""
        train, meta = self._streams(batch, batch_idx)
        train = self._start_step(train, batch_idx)
        # no θ, no optimizer of θ: what is learned may be transient alone
        optimizer, *meta_optimizer = _listed(self.optimizers())
        if meta is not None:
            found = self.hypergradient(train, meta, optimizer.optimizer)
            self._meta_step(found, [wrapped.optimizer for wrapped in meta_optimizer], batch_idx)
            outputs = found.training_outputs()
            self.log("train/meta_loss", found.meta_loss, on_step=False, on_epoch=True, batch_size=len(meta),
                     sync_dist=True)  # fmt: skip
        else:
            outputs = self.outputs(self.net, train)
        loss = self.loss(outputs, train)
        self._check_finite(loss, batch_idx)
        with torch.no_grad():
            self.update_state(outputs, train)
        self._real_step(loss, optimizer)
        self._finish_steps()
        return self._finish_step(loss.detach(), outputs, train)

    def hypergradient(
        self, train: Batch, meta: Batch, lr: float | torch.optim.Optimizer, net: nn.Module | None = None
    ) -> Hypergradient:
        """dM/dθ after a virtual step on a training batch; see :class:`~lightning_perturb.bilevel.Bilevel`.

        The gradients are those of :meth:`theta`, then those of :meth:`transient`.

        Args:
            train: Training batch, after :meth:`perturb_input`.
            meta: Meta batch.
            lr: Rate of the virtual step, or the optimizer that has it.
            net: The network that steps; None is :attr:`net`.

        Raises:
            NotImplementedError: If no engine can differentiate a layer of the network.
        """
        net = self.net if net is None else net
        if net not in self._bilevels:
            self._bilevels[net] = Bilevel(
                net,
                self.outputs,
                self._virtual_loss,
                self.meta_loss,
                engine=self.engine,
                look_ahead=self.look_ahead,
                momentum=self.look_ahead_momentum,
                reduce=mean_over_ranks,
            )
        try:
            return self._bilevels[net].hypergradient(train, meta, [*self.theta(), *self.transient()], lr)
        except NotImplementedError as error:
            reason = str(error).partition("\n")[0]
            raise NotImplementedError(
                f"{type(self).__name__}: a layer of the network has neither a forward rule nor a second derivative "
                f"({reason}). Take engine='central', or name the layers that have them in look_ahead."
            ) from error

    def _virtual_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        # what the loss notes in the batch must not reach the real step
        return self.loss(outputs, batch.copy())

    def _meta_step(self, found: Hypergradient, optimizers: list[torch.optim.Optimizer], batch_idx: int) -> None:
        self._check_finite(found.meta_loss, batch_idx)
        theta = self.theta()
        for parameter, gradient in zip(theta, found.gradients, strict=False):
            parameter.grad = gradient
        # below Lightning's wrapper, which would count it as a step of training
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.move_transient(found.gradients[len(theta) :])
        with torch.no_grad():
            for name, (low, high) in self._meta.items():
                value = getattr(self, name)
                if isinstance(value, Tensor):
                    value.clamp_(low, high)
        # autocast keeps the half-precision copies of the old θ
        torch.clear_autocast_cache()

    # optimizers ---------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizer of the network with its scheduler, and the optimizer of θ."""
        configured, theta = super().configure_optimizers(), self.theta()
        return [configured, {"optimizer": self.meta_optimizer(theta)}] if theta else [configured]

    # life cycle ---------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """As in the base; checks that there is something to learn."""
        super().setup(stage)
        if stage == "fit" and not self.learns:
            raise ValueError(f"{type(self).__name__} has nothing to learn from meta samples. {self.remedy}")
        if stage == "fit" and not self.theta() and self.meta_optimizer is not default_meta_optimizer:
            raise ValueError(
                f"meta_optimizer was given to {type(self).__name__}, but what it learns for one batch at a time has a "
                "rate of its own. Leave meta_optimizer away."
            )

    def on_fit_start(self) -> None:
        """Gives all ranks the θ of rank 0."""
        super().on_fit_start()
        # the strategy may have exchanged layers of the network
        self._bilevels = {}
        broadcast_from_first(self.theta())


def _listed(value: Any) -> list[Any]:
    """Lightning gives one optimizer bare and several in a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
