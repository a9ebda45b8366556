"""The base of methods that train two networks at once, each of which looks at the other."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_perturb.checks import check_choice
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.functional._arguments import upcast
from lightning_perturb.nets.features import find_classifier


class TwoNetworkModule(PerturbationModule):
    """A method with a second network beside ``net``, the ``peer``, on the same batches and in the same optimizer.

    :meth:`outputs` has the peer's ``peer_logits`` beside the ``logits``. In the warm-up both learn by cross-entropy.
    Otherwise :meth:`loss` is the subclass's; losses of the two are to be added, so that each network learns at its own
    rate.

    Args:
        second: How the peer starts. ``anew``: from the weights of ``net`` in random order, layer by layer, which are
            another draw from any initialisation of independent entries; biases, factors of norms and what is frozen are
            copied. ``classifier``: only the last layer's, for a network that was trained before.
        evaluate: What predicts: the ``first`` network, or the ``mean`` of both probabilities.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is unknown, or the two networks would start alike.
    """

    def __init__(
        self,
        *args: Any,
        second: Literal["anew", "classifier"] = "anew",
        evaluate: Literal["first", "mean"] = "first",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("second", second, ("anew", "classifier"))
        check_choice("evaluate", evaluate, ("first", "mean"))
        self.evaluate = evaluate
        self.peer = copy.deepcopy(self.net)
        _shuffle(self.peer if second == "anew" else find_classifier(self.peer)[1])

    def setup(self, stage: str) -> None:
        """As in the base; the peer takes the vocabulary of texts, too."""
        super().setup(stage)
        take_vocabulary = getattr(self.peer, "take_vocabulary", None)
        if (
            stage == "fit"
            and self.facts is not None
            and self.facts.vocabulary is not None
            and callable(take_vocabulary)
        ):
            take_vocabulary(self.facts.vocabulary)

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """As in the base, and ``peer_logits`` of the second network."""
        return {**super().outputs(call, batch), "peer_logits": self.run(self.peer, batch.view)}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """In the warm-up cross-entropy of both networks, added."""
        if self.phase == "warmup":
            first, second = (self.plain_loss(outputs[name], batch.y).mean() for name in _BOTH)
            return first + second
        return self.joint_loss(outputs, batch)

    def joint_loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The loss of both networks, a number."""
        raise NotImplementedError(f"{type(self).__name__} must say the loss of its two networks.")

    def both_losses(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Each network's losses of the samples ``[B]``, with what the hooks of the taxonomy add."""
        found = []
        for name in _BOTH:
            raw = outputs[name]
            losses = self.sample_loss(self.perturb_logits(raw, outputs, batch), self.perturb_target(raw, batch), batch)
            found.append(self.perturb_loss(losses, raw, batch))
        return found[0], found[1]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each network's gradient by a norm of its own: one must not slow the other."""
        if gradient_clip_val is None or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        for net in (self.net, self.peer):
            nn.utils.clip_grad_norm_(net.parameters(), gradient_clip_val)

    def evaluation_logits(self, x: Any) -> Tensor:
        """The first network's logits, or the logarithm of the mean probabilities."""
        first = super().evaluation_logits(x)
        if self.evaluate == "first":
            return first
        second = self.run(self.peer, x)
        return torch.logaddexp(upcast(first).log_softmax(1), upcast(second).log_softmax(1)) - math.log(2)


_BOTH = ("logits", "peer_logits")


def _shuffle(net: nn.Module) -> None:
    """Puts the entries of every trained weight in random order; draws from no generator but its own.

    Raises:
        ValueError: If that changes nothing.
    """
    generator = torch.Generator().manual_seed(torch.initial_seed() & (2**63 - 1))
    embeddings = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    padding = {id(layer.weight): layer.padding_idx for layer in embeddings}
    changed = False
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim < 2 or not weight.requires_grad:
                continue
            # what stands for padding is never trained
            place = padding.get(id(weight))
            rows = torch.tensor([row for row in range(len(weight)) if row != place], device=weight.device)
            drawn = weight if place is None else weight[rows]
            order = torch.randperm(drawn.numel(), generator=generator).to(weight.device)
            shuffled = drawn.flatten()[order].reshape(drawn.shape)
            changed = changed or not torch.equal(shuffled, drawn)
            if place is None:
                weight.copy_(shuffled)
            else:
                weight[rows] = shuffled
    if not changed:
        raise ValueError(
            f"{type(net).__name__} has no trained weights that differ from each other, so that the two networks would "
            "start alike and stay so. Give a network whose weights are initialised at random."
        )
