"""The hypergradient of a bilevel problem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from lightning_perturb.bilevel.first_order import NotFirstOrderError, first_order
from lightning_perturb.bilevel.fused import RecordForward
from lightning_perturb.bilevel.higher import second_order
from lightning_perturb.bilevel.lookahead import inner_sgd, looked_ahead
from lightning_perturb.bilevel.replay import Moment, substituted
from lightning_perturb.bilevel.step import Loss, MetaLoss, Outputs, Reduce, Step, depends
from lightning_perturb.bilevel.tangents import Tangents, central_tangents, forward_tangents

ENGINES = ("auto", "central", "forward", "higher")


@dataclass(frozen=True)
class Hypergradient:
    """What one virtual step gives.

    Args:
        gradients: dM/dθ, one for each meta parameter, in order and of its shape.
        meta_loss: M(ŵ), a number, on this rank.
        loss: the inner loss L(w; θ), a number, on this rank.
        training_outputs: gives the outputs of the training forward with their graph, for the real step:
            ``loss(result.training_outputs(), train_batch).backward()``. Where they depend on θ, the forward is run
            again with θ as it is then, with the same draws, and the buffers are not moved a second time.
    """

    gradients: list[Tensor]
    meta_loss: Tensor
    loss: Tensor
    training_outputs: Callable[[], dict[str, Tensor]]


class Bilevel:
    """Exact gradients of an outer loss through one virtual step of the inner problem, on any unchanged network.

    Inner loss L(w; θ) on the training batch, virtual step ŵ = w - α ∇_w L(w; θ), outer loss M(ŵ) on the meta batch.
    :meth:`hypergradient` gives dM/dθ. The engines:

    * ``"forward"``: by the formula of :mod:`lightning_perturb.bilevel.first_order` and one forward-mode pass. No
      second-order graph. Needs that θ enters the loss only, and forward rules of all layers.
    * ``"central"``: the same formula with the tangent by central differences of the outputs, for layers without
      forward rules; approximate, and wrong where the network stops gradients (a difference does not).
    * ``"higher"``: differentiates through the step with the second-order graph: the reference, and the engine for
      several inner steps and for θ inside the network or before it.
    * ``"auto"``: ``"forward"``; where that cannot be, ``"higher"`` from then on, with one warning.

    The first time, the tangent is checked against the backward pass, so that a layer is found that has a wrong rule,
    draws other random numbers when it runs again, or computes a part under ``no_grad``, through which tangents pass and
    gradients do not.

    The network's buffers and the random state move once, as in an ordinary training forward; parameters, their
    ``.grad``, optimizer state and everything else stay as they are. Nothing but the training forward's own graph, kept
    for the real step, outlives the result.

    Args:
        net: the network. In a distributed run the bare module, not its wrapper; a compiled one runs uncompiled.
        outputs: ``outputs(call, batch)`` gives a dict of tensors by running the network only through ``call``, which
            takes its place. Parameters that the loss needs (a classifier's weight) are to be read while ``call`` runs,
            by a hook on their layer, and returned among the outputs.
        loss: ``loss(outputs, batch)``, L as a number, the mean over the batch. Pure in the outputs; θ enters here.
        meta_loss: ``meta_loss(call, batch)``, M as a number.
        engine: ``"auto"``, ``"forward"``, ``"higher"`` or ``"central"``.
        look_ahead: names of parameters or modules of the network (``["fc", "layer3"]``) that the virtual step moves;
            all by default. Cheaper and no longer the full gradient where it is a part.
        momentum: let the virtual step use momentum and weight decay of the optimizer given as ``lr``, an SGD. Plain
            SGD otherwise, as in the papers.
        inner_steps: number of virtual steps, all on the same training batch; more than 1 only with ``"higher"``, which
            ``"auto"`` then takes.
        reduce: mean over ranks of a list of tensors, :func:`mean_over_ranks` in a distributed run. Applied to ∇L before
            the virtual step, to g before the tangent, and to dM/dθ: the result is then the gradient of the mean loss
            over all ranks' batches.

    Raises:
        ValueError: if ``engine`` is unknown, or ``inner_steps`` below 1 or not possible with the engine.
    """

    def __init__(
        self,
        net: nn.Module,
        outputs: Outputs,
        loss: Loss,
        meta_loss: MetaLoss,
        *,
        engine: str = "auto",
        look_ahead: Sequence[str] | None = None,
        momentum: bool = False,
        inner_steps: int = 1,
        reduce: Reduce = list,
    ) -> None:
        # not by core.checks: the core loads Lightning
        if engine not in ENGINES:
            raise ValueError(f"engine={engine!r} is unknown. Choose one of: {', '.join(ENGINES)}.")
        if inner_steps < 1 or (inner_steps > 1 and engine in ("forward", "central")):
            raise ValueError(
                f"inner_steps={inner_steps!r} does not go with engine={engine!r}. Take 1, or more with engine='higher'."
            )
        if isinstance(look_ahead, str):
            raise ValueError(f"look_ahead={look_ahead!r} is one string. Give a list of names: [{look_ahead!r}].")
        # A compiled graph can neither be kept for a second backward pass nor be differentiated twice.
        self.net: nn.Module = getattr(net, "_orig_mod", net)
        self.outputs = outputs
        self.loss = loss
        self.meta_loss = meta_loss
        self.engine = "higher" if inner_steps > 1 else engine
        self.look_ahead = look_ahead
        self.momentum = momentum
        self.inner_steps = inner_steps
        self.reduce = reduce
        self._checked = False

    def hypergradient(
        self, train_batch: Any, meta_batch: Any, meta_parameters: Sequence[Tensor], lr: float | Optimizer
    ) -> Hypergradient:
        """dM/dθ after one virtual step on ``train_batch``.

        Args:
            train_batch: what ``outputs`` and ``loss`` take.
            meta_batch: what ``meta_loss`` takes.
            meta_parameters: θ: tensors that require gradients, on which ``loss`` depends.
            lr: α, or the optimizer of the real step, whose groups give their current rates; parameters that it does not
                hold are not moved.

        Returns:
            The gradients, both losses, and the outputs of the training forward for the real step.

        Raises:
            ValueError: if ``meta_parameters`` is empty or one does not require a gradient; if the loss depends on none
                of them, or reads a parameter of the network past its outputs; if ``look_ahead`` or ``lr`` does not fit.
            NotFirstOrderError: with ``"forward"`` and ``"central"``, where the formula cannot be used.
        """
        theta = list(meta_parameters)
        if not theta or not all(parameter.requires_grad for parameter in theta):
            raise ValueError("meta_parameters must be tensors with requires_grad=True, and at least one.")
        ahead = looked_ahead(self.net, theta, lr, self.look_ahead)
        start = Moment(self.net)
        step = Step(
            net=self.net,
            outputs=self.outputs,
            loss=self.loss,
            meta_loss=self.meta_loss,
            reduce=self.reduce,
            train_batch=train_batch,
            meta_batch=meta_batch,
            theta=theta,
            ahead=ahead,
            sgd=inner_sgd(ahead, lr, self.momentum),
            start=start,
        )
        recording = RecordForward() if self.engine in ("auto", "forward") else None
        with _one_dropout_mask(start), recording or nullcontext():
            outputs = self.outputs(self.net, train_batch)
        with start.random_state_kept():
            if self.engine != "higher":
                try:
                    solved = self._first_order(step, outputs, recording)
                    return Hypergradient(*solved, training_outputs=lambda: outputs)
                except NotFirstOrderError as reason:
                    if self.engine != "auto":
                        raise NotFirstOrderError(f"{reason}. Take engine='auto' or engine='higher'.") from reason
                    warnings.warn(f"engine='auto' goes on with engine='higher': {reason}.", stacklevel=2)
                    self.engine = "higher"
            solved = second_order(step, self.inner_steps)

        def again() -> dict[str, Tensor]:
            with start.random_state(), _one_dropout_mask(start):
                call = substituted(self.net, dict(self.net.named_parameters()), start.buffers())
                return self.outputs(call, train_batch)

        return Hypergradient(*solved, training_outputs=again if depends(outputs, theta) else lambda: outputs)

    def _first_order(
        self, step: Step, outputs: dict[str, Tensor], recording: RecordForward | None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        tangents: Callable[[Step, dict[str, Tensor]], Tangents] = central_tangents
        tolerance = 0.1  # a difference crosses the kinks of ReLUs
        if recording is not None:
            tangents = partial(forward_tangents, rules=recording.rules())
            tolerance = 1e-6
        solved = first_order(step, outputs, tangents, None if self._checked else tolerance)
        self._checked = True
        return solved


def _one_dropout_mask(start: Moment) -> AbstractContextManager[None]:
    """On accelerators the fused attention kernels draw another mask than the formula, by which it is replayed."""
    return sdpa_kernel(SDPBackend.MATH) if start.on_accelerator else nullcontext()
