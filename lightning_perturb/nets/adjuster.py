"""The network of NARL-Adjuster, together with the robust loss that it serves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.functional import adjust, gce_loss, js_loss, margin, polysoft_loss, sl_loss
from lightning_perturb.nets.meta import MetaMLP


@dataclass(frozen=True)
class RobustLoss:
    """A loss of logits, labels and d' hyperparameters, and the range that an adjuster has for each of them.

    Attributes:
        loss: Takes logits ``[B, C]``, class ids ``[B]`` and the hyperparameters by name; gives losses ``[B]``.
        names: Their names.
        scale: Factor of the sigmoid for each.
        low: Smallest value of each.
        high: Largest value of each.
        offset: What is added to each before it is clamped.
    """

    loss: Callable[..., Tensor]
    names: tuple[str, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    offset: tuple[float, ...]


#: scales and clamps of the authors' code; those of PolySoft are not published, and ours
ROBUST_LOSSES = {
    "gce": RobustLoss(gce_loss, ("q",), (1.5,), (0.01,), (1.0,), (0.0,)),
    "sl": RobustLoss(sl_loss, ("gamma1", "gamma2"), (1.0, 1.0), (0.0, 0.0), (20.0, 20.0), (0.0, 0.0)),
    "js": RobustLoss(js_loss, ("pi1",), (1.4,), (0.01,), (0.99,), (0.0,)),
    "polysoft": RobustLoss(polysoft_loss, ("lam", "d"), (10.0, 4.0), (1e-3, 1.01), (20.0, 20.0), (0.0, 1.01)),
}


class Adjuster(MetaMLP):
    """NARL-Adjuster: from a sample's margin to the hyperparameters of its robust loss [narl 3.2].

    A hyperparameter is offset + scale sigmoid(raw output), clamped.

    Args:
        robust_loss: ``gce``, ``sl``, ``js`` or ``polysoft``.
        scale: Factor of the sigmoid for each hyperparameter; None takes the loss' own, as for the three that follow.
        low: Smallest value of each.
        high: Largest value of each.
        offset: What is added to each before it is clamped.
        soft_range: Spread the sigmoid over the reachable interval instead of clamping.
        hidden: Width of the hidden layer.

    Raises:
        ValueError: If the loss is unknown, or a scale does not fit it.
    """

    def __init__(
        self,
        robust_loss: str = "gce",
        scale: Sequence[float] | None = None,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
        offset: Sequence[float] | None = None,
        soft_range: bool = False,
        hidden: int = 100,
    ) -> None:
        check_choice("robust_loss", robust_loss, ROBUST_LOSSES)
        self.robust = ROBUST_LOSSES[robust_loss]
        names = self.robust.names
        if scale is not None and (len(scale) != len(names) or min(scale) <= 0):
            raise ValueError(
                f"scale={scale} does not fit robust_loss={robust_loss!r}. Give {len(names)} number(s) above 0, for "
                f"{' and '.join(names)}."
            )
        super().__init__(1, hidden, len(names))
        self.robust_loss = robust_loss
        self.scale = tuple(map(float, scale or self.robust.scale))
        self.low = tuple(low or self.robust.low)
        self.high = tuple(high or self.robust.high)
        self.offset = tuple(offset or self.robust.offset)
        self.soft_range = soft_range
        self.hidden = hidden

    def hyperparameters(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Each hyperparameter of the loss by sample ``[B]``, a constant in the logits.

        Args:
            logits: Raw logits ``[B, C]``.
            y: Given labels ``[B]``.
        """
        return self.at(margin(logits.detach(), y))

    def at(self, margins: Tensor) -> dict[str, Tensor]:
        """Each hyperparameter of the loss ``[B]`` at margins ``[B]``."""
        raw = self(margins[:, None].to(next(self.parameters()).dtype))
        columns = adjust(raw, self.scale, self.low, self.high, self.offset, self.soft_range)
        return dict(zip(self.robust.names, columns.unbind(1), strict=True))

    def loss(self, logits: Tensor, y: Tensor, hyperparameters: dict[str, Tensor]) -> Tensor:
        """The robust loss of each sample ``[B]``."""
        return self.robust.loss(logits, y, **hyperparameters)
