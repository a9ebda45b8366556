"""Mixup and MetaMixUp: every input and label is mixed with those of a partner in the batch."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule, PerturbationModule
from lightning_perturb.core.distributed import gather_rows, rank
from lightning_perturb.core.inputs import float_input
from lightning_perturb.core.partners import mixing_weights, partners
from lightning_perturb.functional import mix, one_hot


class Mixup(PerturbationModule):
    """Inputs and labels mixed with those of a partner, w x_i + (1 - w) x_j with w from Beta(α, α).

    Partners are a random cycle through the samples of all devices, so nobody is mixed with itself.

    Args:
        alpha: α; published: 1 for CIFAR, 0.2 to 0.4 for ImageNet.
        weights: One w for the ``batch`` (published code) or for each ``sample``.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of(("feature", "label"), ("positive", "negative"), "prior", "sample")

    def __init__(
        self, *args: Any, alpha: float = 1.0, weights: Literal["batch", "sample"] = "batch", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        check_positive("alpha", alpha)
        check_choice("weights", weights, ("batch", "sample"))
        self.alpha = alpha
        self.weights = weights

    def perturb_input(self, batch: Batch) -> Batch:
        """w x_i + (1 - w) x_j."""
        x, partner_x, weights = self._pair(batch)
        batch.extra["mixing_weight"] = weights[batch.extra["mixing_place"]]
        return batch.with_input(mix(x, partner_x, batch.extra["mixing_weight"]))

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """w y_i + (1 - w) y_j."""
        own, other = (self._soft(y, logits) for y in (batch.y, batch.extra["partner_y"]))
        return mix(own, other, self.mixing_weight(batch))

    def mixing_weight(self, batch: Batch) -> Tensor:
        """w of each sample ``[B]``."""
        return batch.extra["mixing_weight"]

    def _soft(self, y: Tensor, logits: Tensor) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return one_hot(y, self.num_classes, dtype) if y.ndim == 1 else y.to(dtype)

    def pairing(self, batch: Batch) -> tuple[Tensor, ...]:
        """What partners are chosen by, beside the samples' keys: numbers ``[B]``."""
        return ()

    def choose(self, keys: Tensor, *by: Tensor) -> Tensor:
        """Places of the partners ``[N]`` among the samples of all devices.

        Args:
            keys: One integer for each sample ``[N]``.
            *by: What :meth:`pairing` gives, of all of them.
        """
        return partners(self._draw_seed, self.current_epoch, keys)

    def _pair(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, their partners' ones, and the drawn weights of all devices' samples, among which it notes the own."""
        own = float_input(type(self).__name__, batch)
        partner, weights = self._draw_pairs(batch)
        (x,) = gather_rows(own)
        return own, x[partner], weights.to(own.dtype)

    def _draw_pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Places of the partners ``[B]`` among all devices' samples, and the weights of all of these."""
        keys = self.sample_keys(batch)
        y, keys, owner, *by = gather_rows(batch.y, keys, torch.full_like(keys, rank()), *self.pairing(batch))
        place = (owner == rank()).nonzero().squeeze(1)
        partner = self.choose(keys, *by)[place]
        batch.extra["mixing_place"] = place
        batch.extra["partner_y"] = y[partner]
        return partner, self._draw(keys)

    def _draw(self, keys: Tensor) -> Tensor:
        of = keys if self.weights == "sample" else keys.new_full((1,), self._batch_idx)
        return mixing_weights(self._draw_seed, self.current_epoch, of, self.alpha).expand(len(keys))


class MetaMixUp(MetaPerturbationModule, Mixup):
    """Mixup whose weights are moved by meta gradients before they are used.

    In every batch each pair's w starts at its draw and makes one step on the loss of clean samples after a virtual step
    of the network; the real step uses the moved one. The weights enter before the network, so the engine is
    ``higher``. The authors' semi-supervised part with pseudo-labels is another method.

    Args:
        policy_lr: Step on w, against B dM/dw for a batch of B, so that it does not depend on the batch size. Not
            published; 0 gives Mixup.
        weights: One draw for the ``batch`` or for each ``sample``; after the step each pair has its own.
        engine: As in the base; ``forward`` and ``central`` do not reach a θ before the network.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule`, and ``alpha`` of
            :class:`~lightning_perturb.methods.Mixup`.
    """

    coordinates = Coordinates.of(("feature", "label"), ("positive", "negative"), "meta", "sample")

    _pair_weight: Tensor

    def __init__(
        self,
        *args: Any,
        policy_lr: float = 1.0,
        weights: Literal["batch", "sample"] = "sample",
        engine: Literal["auto", "forward", "higher", "central"] = "higher",
        **kwargs: Any,
    ) -> None:
        check_positive("policy_lr", policy_lr, zero=True)
        super().__init__(*args, weights=weights, engine=engine, **kwargs)
        self.policy_lr = policy_lr

    @property
    def learns(self) -> bool:
        """Always: the weights of each batch."""
        return True

    def perturb_input(self, batch: Batch) -> Batch:
        """Keeps the partners beside the inputs: w is known after the meta step."""
        _, batch.extra["partner_x"], self._pair_weight = self._pair(batch)
        return batch

    def transient(self) -> list[Tensor]:
        """w of the pairs of this batch over all devices."""
        self._pair_weight = self._pair_weight.clone().requires_grad_()
        return [self._pair_weight]

    def move_transient(self, gradients: list[Tensor]) -> None:
        """w - policy_lr B dM/dw, kept in [0, 1]."""
        step = self.policy_lr * len(self._pair_weight)
        self._pair_weight = self._pair_weight.detach().sub(gradients[0], alpha=step).clamp_(0.0, 1.0)

    def mixing_weight(self, batch: Batch) -> Tensor:
        """w of each sample ``[B]``, with its gradient."""
        return self._pair_weight[batch.extra["mixing_place"]]

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits of the mixed inputs."""
        if "partner_x" not in batch.extra:
            return super().outputs(call, batch)
        x = mix(float_input(type(self).__name__, batch), batch.extra["partner_x"], self.mixing_weight(batch))
        return super().outputs(call, batch.with_input(x))
