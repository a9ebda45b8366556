"""Attacks along the gradient of the loss in the input."""

from typing import Any, Literal

from torch import Tensor

from lightning_perturb.attacks.attack import Attack, Ball, Model
from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.core.inputs import InputSpace
from lightning_perturb.functional import apgd, fgsm, pgd


class PGD(Attack):
    """Projected gradient ascent on cross-entropy [tax 32]; by default PGD-20.

    Args:
        eps: Radius of the ball, in the units of ``space``: pixel values of [0, 1] (8/255 = 0.0314).
        step_size: Length of a step, in the same units; None takes 2.5 eps / steps, by which every point of the ball can
            be reached from any other.
        steps: Steps of each try.
        best: Judge each sample by its iterate of the highest loss (one more pass) instead of by its last one.
        **kwargs: Arguments of :class:`~lightning_perturb.attacks.Attack`.
    """

    def __init__(
        self, eps: float = 8 / 255, step_size: float | None = None, steps: int = 20, best: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(eps, **kwargs)
        if step_size is not None:
            check_positive("step_size", step_size, zero=True)
        check_positive("steps", steps)
        self.step_size = 2.5 * eps / steps if step_size is None else step_size
        self.steps = steps
        self.best = best

    def at(self, eps: float) -> Attack:
        """The same attack in a ball of another radius; a step keeps its share of it."""
        kwargs = self.given[1]
        step = kwargs.get("step_size")
        if step is not None and self.eps:
            kwargs["step_size"] = step * eps / self.eps
        return type(self)(**{**kwargs, "eps": eps})

    def perturb(self, model: Model, x: Tensor, y: Tensor, ball: Ball, start: Tensor | None) -> Tensor:
        """The last iterate, or the best one."""
        step = self.step_size * ball.unit
        return pgd(model, x, y, ball.radius, step, self.steps, ball.norm, start, ball.low, ball.high, best=self.best)


class FGSM(Attack):
    """The fast gradient (sign) method: one step of the whole radius, from the input itself.

    Args:
        eps: Radius of the ball, in the units of ``space``: pixel values of [0, 1] (8/255 = 0.0314).
        norm: ``linf``: each number of the input moves by ``eps``. ``l2``: the input moves by ``eps`` along the
            gradient.
        space: The units of sizes, and what inputs must stay inside; None: valid pixels, normalised as the data module
            says.
    """

    def __init__(
        self, eps: float = 8 / 255, norm: Literal["linf", "l2"] = "linf", space: InputSpace | None = None
    ) -> None:
        super().__init__(eps, norm, random_start=False, space=space)

    def perturb(self, model: Model, x: Tensor, y: Tensor, ball: Ball, start: Tensor | None) -> Tensor:
        """One step."""
        return fgsm(model, x, y, ball.radius, ball.norm, ball.low, ball.high)


class APGD(Attack):
    """Auto-PGD on cross-entropy, whose step size finds itself: the stronger attack, with nothing to tune.

    Args:
        eps: Radius of the ball, in the units of ``space``: pixel values of [0, 1] (8/255 = 0.0314).
        steps: Steps of each try; 100 in its paper (Croce and Hein 2020).
        rho: The share of steps that must raise the loss, or steps become smaller.
        **kwargs: Arguments of :class:`~lightning_perturb.attacks.Attack`.
    """

    def __init__(self, eps: float = 8 / 255, steps: int = 100, rho: float = 0.75, **kwargs: Any) -> None:
        super().__init__(eps, **kwargs)
        check_positive("steps", steps)
        check_rate("rho", rho)
        self.steps = steps
        self.rho = rho

    def perturb(self, model: Model, x: Tensor, y: Tensor, ball: Ball, start: Tensor | None) -> Tensor:
        """An iterate of another class, or else that of the highest loss."""
        return apgd(model, x, y, ball.radius, self.steps, ball.norm, start, ball.low, ball.high, self.rho)
