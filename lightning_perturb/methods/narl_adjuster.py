"""NARL-Adjuster: the hyperparameters of a robust loss, for each sample, as a learned function of its margin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_perturb.checks import check_choice
from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.functional import adjust, gce_loss, js_loss, margin, polysoft_loss, sl_loss
from lightning_perturb.nets import MetaMLP


@dataclass(frozen=True)
class _Adjustable:
    """A loss of logits, labels and d' hyperparameters, and the range that an adjuster has for each of them."""

    loss: Callable[..., Tensor]
    names: tuple[str, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    offset: tuple[float, ...]


# scales and clamps of the authors' code; those of PolySoft are not published, and ours
_LOSSES = {
    "gce": _Adjustable(gce_loss, ("q",), (1.5,), (0.01,), (1.0,), (0.0,)),
    "sl": _Adjustable(sl_loss, ("gamma1", "gamma2"), (1.0, 1.0), (0.0, 0.0), (20.0, 20.0), (0.0, 0.0)),
    "js": _Adjustable(js_loss, ("pi1",), (1.4,), (0.01,), (0.99,), (0.0,)),
    "polysoft": _Adjustable(polysoft_loss, ("lam", "d"), (10.0, 4.0), (1e-3, 1.01), (20.0, 20.0), (0.0, 1.01)),
}


class NARLAdjuster(MetaPerturbationModule):
    """A robust loss whose hyperparameters, for each sample, are a learned function of its margin [narl Algorithm 1].

    A-GCE, A-SL, A-JS or A-PolySoft by ``robust_loss``. A hyperparameter is offset + scale sigmoid(raw output), clamped;
    the margin is a constant in the virtual and the real step.

    Args:
        robust_loss: ``gce`` (learns q), ``sl`` (gamma1, gamma2), ``js`` (pi1) or ``polysoft`` (lam, d).
        scale: Factor of the sigmoid for each hyperparameter; None takes the published ones: 1.5 for GCE, 1 and 1 for
            SL, 1.4 for JS. Those of PolySoft are not published: 10, and 4 above 1.01.
        soft_range: Spread the sigmoid over the reachable interval instead of clamping, where a clamped hyperparameter
            learns nothing (GCE: two thirds of the way on).
        hidden: Width of the adjuster.
        meta_every: The adjuster moves in every so manieth batch, T_meta.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`.
    """

    coordinates = Coordinates.of("loss", "positive", "meta", "sample")
    paper = "narl"

    meta_net: MetaMLP

    def __init__(
        self,
        *args: Any,
        robust_loss: Literal["gce", "sl", "js", "polysoft"] = "gce",
        scale: list[float] | None = None,
        soft_range: bool = False,
        hidden: int = 100,
        meta_every: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, meta_every=meta_every, **kwargs)
        check_choice("robust_loss", robust_loss, _LOSSES)
        self.adjusted = _LOSSES[robust_loss]
        names = self.adjusted.names
        if scale is not None and (len(scale) != len(names) or min(scale) <= 0):
            raise ValueError(
                f"scale={scale} does not fit robust_loss={robust_loss!r}. Give {len(names)} number(s) above 0, for "
                f"{' and '.join(names)}."
            )
        self.scale = tuple(scale or self.adjusted.scale)
        self.soft_range = soft_range
        self.add_meta("meta_net", MetaMLP(1, hidden, len(names)))

    def hyperparameters(self, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Each hyperparameter of the loss by sample ``[B]``, a constant in the logits.

        Args:
            logits: Raw logits ``[B, C]``.
            y: Given labels ``[B]``.
        """
        raw = self.meta_net(margin(logits.detach(), y)[:, None].to(self.dtype))
        part = self.adjusted
        columns = adjust(raw, self.scale, part.low, part.high, part.offset, self.soft_range)
        return dict(zip(part.names, columns.unbind(1), strict=True))

    def sample_loss(self, logits: Tensor, target: Tensor, batch: Batch) -> Tensor:
        """The robust loss at each sample's own hyperparameters."""
        return self.adjusted.loss(logits, target, **self.hyperparameters(logits, target))
