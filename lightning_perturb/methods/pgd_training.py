"""PGD training: cross-entropy on adversarial inputs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.inputs import InputSpace, float_input
from lightning_perturb.core.layer import PerturbedLayer
from lightning_perturb.core.modes import attackable
from lightning_perturb.functional import pgd, uniform_start


class PGDTraining(PerturbationModule):
    """Adversarial training: every input is moved to raise its loss inside an l-infinity ball [tax 32].

    Texts are moved where their words are embedded [tax section 6.3]: ``perturb_at="embeddings"``. Padding stays.

    Args:
        eps: Radius of the ball, in pixel units of [0, 1] (8/255 = 0.0314).
        step_size: Length of one step, in the same units.
        steps: Steps of the attack (the paper's code: 5).
        random_start: Start at a uniform point of the ball, drawn for each sample and epoch.
        start_radius: Radius of the ball that the start is drawn from, as far as it is inside that of ``eps``; None
            takes ``eps``. The paper's released code for texts has 0.001.
        eps_space: ``pixel``: the radius and ``step_size`` are pixel values, whatever the normalisation of the input.
            ``normalized``: they are units of the input as the network sees it (released code; about 4 times weaker).
        clip: Keep attacked images inside valid pixels (the released code does not).
        mean: Per-channel mean of the input's normalisation; None takes the data module's.
        std: Per-channel standard deviation, likewise.
        perturb_at: What is moved: the ``input``; the output of ``embeddings``, the layer that embeds words; or that of
            any layer, by its dotted name in the network. Sizes are then in units of that output, and ``eps_space``,
            ``clip``, ``mean`` and ``std`` say nothing.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("feature", "negative", "adversarial", "sample")

    def __init__(
        self,
        *args: Any,
        eps: float = 8 / 255,
        step_size: float = 2 / 255,
        steps: int = 5,
        random_start: bool = True,
        start_radius: float | None = None,
        eps_space: Literal["pixel", "normalized"] = "pixel",
        clip: bool = True,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        perturb_at: str = "input",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("eps", eps, zero=True)
        check_positive("step_size", step_size, zero=True)
        check_positive("steps", steps, zero=True)
        check_choice("eps_space", eps_space, ("pixel", "normalized"))
        self.space = InputSpace("pixel" if eps_space == "pixel" else "input", clip, mean, std)
        self.eps = eps
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        if start_radius is not None:
            check_positive("start_radius", start_radius, zero=True)
        self.start_radius = start_radius
        self.perturb_at = perturb_at
        self._layer = None if perturb_at == "input" else PerturbedLayer(self.net, perturb_at)
        self._pixels_checked: int | None = None

    def setup(self, stage: str) -> None:
        """Lets the first epoch that attacks look at the inputs."""
        super().setup(stage)
        self._pixels_checked = None

    def perturb_input(self, batch: Batch) -> Batch:
        """x + δ, attacked in evaluation mode."""
        with attackable(self.net):
            return self.moved(batch, self.attack(batch, self.eps))

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits of the moved input."""
        with self._moving(batch.extra.get("layer_delta")):
            return super().outputs(call, batch)

    def moved(self, batch: Batch, delta: Tensor) -> Batch:
        """The batch with δ added where ``perturb_at`` says; a layer's δ waits in ``extra`` for :meth:`outputs`."""
        if self._layer is None:
            return batch.with_input(self._attackable(batch) + delta)
        batch = batch.copy()
        batch.extra["layer_delta"] = delta
        return batch

    def attacked_value(self, batch: Batch) -> Tensor:
        """What is moved ``[B, ...]``: the input, or what the layer makes of it."""
        if self._layer is None:
            return self._attackable(batch)
        with attackable(self.net):
            return self._layer.output(partial(self.run, self.net, batch.view))

    def attack(self, batch: Batch, eps: float | Tensor) -> Tensor:
        """The perturbation δ that raises each sample's loss.

        Args:
            batch: Inputs, labels and keys.
            eps: Radius, a number or one for each sample ``[B]``, in the units of ``eps_space``.

        Returns:
            δ in the shape of :meth:`attacked_value`, detached.
        """
        x = self.attacked_value(batch)
        if isinstance(eps, Tensor):
            eps = eps.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        if self._layer is None:
            self._check_pixels(x)
            low, high = self.space.bounds(x, self.facts)
            unit: float | Tensor = self.space.unit(x, self.facts)
        else:
            # of what a layer gives, the perturbation alone is needed: the layer adds it to what it makes itself
            x, low, high, unit = x.new_zeros(x.shape), None, None, 1.0

        def logits(z: Tensor) -> Tensor:
            if self._layer is None:
                return self.run(self.net, z)
            with self._layer.moved(z):
                return self.run(self.net, batch.view)

        start = None
        if self.random_start:
            radius = eps if self.start_radius is None else self.start_radius
            start = uniform_start(self.uniform("attack", batch, *x.shape[1:]).to(x.dtype), radius * unit)
        size = self.step_size * unit
        return pgd(logits, x, batch.y, eps * unit, size, self.steps, "linf", start, low, high)

    def _moving(self, delta: Tensor | None) -> AbstractContextManager[None]:
        return nullcontext() if self._layer is None or delta is None else self._layer.moved(delta)

    def _attackable(self, batch: Batch) -> Tensor:
        remedy = "Set perturb_at to embeddings, or use a method that perturbs logits or labels on such data."
        return float_input(type(self).__name__, batch, remedy)

    def _check_pixels(self, x: Tensor) -> None:
        # one epoch sees every input; later ones need not wait for the device
        if self._pixels_checked is None:
            self._pixels_checked = self.current_epoch
        if self._pixels_checked == self.current_epoch:
            self.space.check(x, self.facts)
