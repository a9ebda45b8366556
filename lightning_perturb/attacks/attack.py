"""What every attack is: a ball around each input, starts in it, and the worst of several tries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.inputs import InputSpace, Normalised
from lightning_perturb.core.plain import Plain
from lightning_perturb.functional import l2_start, uniform_start

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Ball:
    """Where the perturbations of a batch may go, in the units of the input as the network sees it.

    Attributes:
        norm: ``linf`` or ``l2``.
        radius: By channel ``[1, C, 1, ...]``.
        unit: What a size of 1 is, likewise.
        low: The lowest valid input, likewise; None for no bound.
        high: The highest, likewise.
    """

    norm: str
    radius: Tensor
    unit: Tensor
    low: Tensor | None
    high: Tensor | None


class Attack(Plain):
    """Looks for a perturbation inside a ball that makes a network take a sample for another class.

    A subclass says how, in :meth:`perturb`.

    Args:
        eps: Radius of the ball, in the units of ``space``: pixel values of [0, 1] (8/255 = 0.0314).
        norm: ``linf``: no number of the input moves further than ``eps``. ``l2``: the input moves no further.
        restarts: Tries, each from another start; a sample is robust where none of them succeeds.
        random_start: Start at a uniform point of the ball instead of at the input.
        space: The units of sizes, and what inputs must stay inside; None: valid pixels, normalised as the data module
            says.

    Raises:
        ValueError: If a number or a word is invalid, or several tries would all be the same.
    """

    def __init__(
        self,
        eps: float = 8 / 255,
        norm: Literal["linf", "l2"] = "linf",
        restarts: int = 1,
        random_start: bool = True,
        space: InputSpace | None = None,
    ) -> None:
        check_positive("eps", eps, zero=True)
        check_choice("norm", norm, ("linf", "l2"))
        check_positive("restarts", restarts)
        if restarts > 1 and not random_start:
            raise ValueError(f"restarts={restarts} without random_start is one attack, repeated. Set restarts to 1.")
        self.eps = eps
        self.norm = norm
        self.restarts = restarts
        self.random_start = random_start
        self.space = space or InputSpace()

    def perturb(self, model: Model, x: Tensor, y: Tensor, ball: Ball, start: Tensor | None) -> Tensor:
        """The perturbation of each input, inside the ball.

        Args:
            model: From inputs to logits ``[B, C]``; differentiable.
            x: Inputs ``[B, ...]``.
            y: Class ids ``[B]``.
            ball: Where perturbations may go.
            start: Perturbations to start from, or None to start at the inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it perturbs.")

    def at(self, eps: float) -> "Attack":
        """The same attack in a ball of another radius."""
        args, kwargs = self.given
        made: Attack = type(self)(*args, **{**kwargs, "eps": eps})
        return made

    def ball(self, x: Tensor, normalised: Normalised | None = None) -> Ball:
        """The ball around inputs.

        Args:
            x: Inputs ``[B, ...]``, as the network sees them.
            normalised: How their pixels were normalised, where the attack's space does not say.
        """
        unit = self.space.unit(x, normalised)
        return Ball(self.norm, self.eps * unit, unit, *self.space.bounds(x, normalised))

    def survivors(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        normalised: Normalised | None = None,
        decide: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Which samples are taken for their class after every try ``[B]``, in bool.

        Starts belong to samples: whatever stands beside a sample in the batch, it is attacked from the same points.

        Args:
            model: From inputs to logits ``[B, C]``; differentiable.
            x: Inputs ``[B, ...]``.
            y: Class ids ``[B]``.
            keys: One integer of each sample that names it in random draws ``[B]``.
            normalised: As of :meth:`ball`.
            decide: From logits to predicted ids; None takes the largest logit.
            seed: Seed of the starts.
        """
        right = torch.ones_like(y, dtype=torch.bool)
        for attempt in range(self.restarts):
            rows = right.nonzero()[:, 0]
            if not len(rows):
                break
            part, label = x[rows], y[rows]
            ball = self.ball(part, normalised)
            start = self._start(part, ball, keys[rows], seed, attempt) if self.random_start else None
            moved = part + self.perturb(model, part, label, ball, start)
            with torch.no_grad():
                logits = model(moved)
            right[rows] = (logits.argmax(1) if decide is None else decide(logits)) == label
        return right

    def _start(self, x: Tensor, ball: Ball, keys: Tensor, seed: int, attempt: int) -> Tensor:
        stream, shape = f"attack/{attempt}", x.shape[1:]
        if self.norm == "linf":
            return uniform_start(keyed_random.uniform(seed, stream, 0, keys, *shape).to(x.dtype), ball.radius)
        direction = keyed_random.normal(seed, stream, 0, keys, *shape).to(x.dtype)
        return l2_start(direction, keyed_random.uniform(seed, f"{stream}/length", 0, keys).to(x.dtype), ball.radius)
