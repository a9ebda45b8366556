"""PGD training: cross-entropy on adversarial inputs."""

from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, PerturbationModule
from lightning_perturb.core.inputs import InputSpace, float_input
from lightning_perturb.core.modes import evaluating
from lightning_perturb.functional import pgd, uniform_start


class PGDTraining(PerturbationModule):
    """Adversarial training: every input is moved to raise its loss inside an l-infinity ball [tax 32].

    Args:
        eps: Radius of the ball, in pixel units of [0, 1] (8/255 = 0.0314).
        step_size: Length of one step, in the same units.
        steps: Steps of the attack (the paper's code: 5).
        random_start: Start at a uniform point of the ball, drawn for each sample and epoch.
        eps_space: ``pixel``: the radius and ``step_size`` are pixel values, whatever the normalisation of the input.
            ``normalized``: they are units of the input as the network sees it (released code; about 4 times weaker).
        clip: Keep attacked images inside valid pixels (the released code does not).
        mean: Per-channel mean of the input's normalisation; None takes the data module's.
        std: Per-channel standard deviation, likewise.
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
        eps_space: Literal["pixel", "normalized"] = "pixel",
        clip: bool = True,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
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
        self._pixels_checked: int | None = None

    def setup(self, stage: str) -> None:
        """Lets the first epoch that attacks look at the inputs."""
        super().setup(stage)
        self._pixels_checked = None

    def perturb_input(self, batch: Batch) -> Batch:
        """x + δ, attacked in evaluation mode."""
        x = self._attackable(batch)
        with evaluating(self.net):
            return batch.with_input(x + self.attack(x, batch, self.eps))

    def attack(self, x: Tensor, batch: Batch, eps: float | Tensor) -> Tensor:
        """The perturbation δ that raises each sample's loss.

        Args:
            x: Inputs ``[B, ...]`` as the network gets them.
            batch: Their labels and keys.
            eps: Radius, a number or one for each sample ``[B]``, in the units of ``eps_space``.

        Returns:
            δ in the shape of ``x``, detached.
        """
        self._check_pixels(x)
        low, high = self.space.bounds(x, self.facts)
        unit = self.space.unit(x, self.facts)
        if isinstance(eps, Tensor):
            eps = eps.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        radius = eps * unit
        start = None
        if self.random_start:
            start = uniform_start(self.uniform("attack", batch, *x.shape[1:]).to(x.dtype), radius)
        return pgd(
            lambda z: self.run(self.net, z),
            x,
            batch.y,
            radius,
            self.step_size * unit,
            self.steps,
            "linf",
            start,
            low,
            high,
        )

    def _attackable(self, batch: Batch) -> Tensor:
        return float_input(type(self).__name__, batch)

    def _check_pixels(self, x: Tensor) -> None:
        # one epoch sees every input; later ones need not wait for the device
        if self._pixels_checked is None:
            self._pixels_checked = self.current_epoch
        if self._pixels_checked == self.current_epoch:
            self.space.check(x, self.facts)
