"""Fish: gradients of domains that agree with each other."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.bilevel import mean_over_ranks
from lightning_perturb.checks import check_rate
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core import random as keyed_random
from lightning_perturb.core.distributed import gather_rows, world_size
from lightning_perturb.core.domains import DomainModule
from lightning_perturb.core.manual import ManualModule


class Fish(ManualModule, DomainModule):
    """One step for each domain in turn, and from where they began a part of the way (Shi et al., 2022).

    In every batch θ~ starts at θ and makes a step of the optimizer on the mean loss of each domain's samples, of all
    devices, in a random order; then θ moves to θ + ε (θ~ - θ). Beside lowering the mean of the domains' losses this
    raises the inner products of their gradients, to second order in the rate. The optimizer goes on from batch to
    batch, as in the published code. (There, each inner step has a batch of its own.)

    Args:
        outer_rate: ε, from 0 to 1. 0.5 as in DomainBed; the authors take 0.01 to 0.1, after a training with
            cross-entropy, which ``warmup_epochs`` gives. 1 stays at θ~.
        **kwargs: Arguments of :class:`~lightning_perturb.core.manual.ManualModule`, whose ``gradient_clip_val`` is for
            each inner step, and of :class:`~lightning_perturb.core.domains.DomainModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "regularization", "corpus")

    def __init__(self, *args: Any, outer_rate: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_rate("outer_rate", outer_rate)
        self.outer_rate = outer_rate

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Inner steps and the outer one; what it returns is what recorders read, each sample at its inner step."""
        train = self._start_step(batch, batch_idx)
        optimizer: Any = self.optimizers()
        if self.phase == "warmup":
            outputs = self.outputs(self.net, train)
            loss = self.loss(outputs, train)
            self._check_finite(loss, batch_idx)
            self._real_step(loss, optimizer)
        else:
            outputs, loss = self._inner_steps(train, optimizer, batch_idx)
        with torch.no_grad():
            self.update_state(outputs, train)
        self._finish_steps()
        return self._finish_step(loss.detach(), outputs, train)

    def _inner_steps(self, train: Batch, optimizer: Any, batch_idx: int) -> tuple[dict[str, Tensor], Tensor]:
        """Moves θ; gives the logits and the mean loss of this rank's samples."""
        moved = self._moved(optimizer)
        start = [parameter.detach().clone() for parameter in moved]
        domain = self.domains(train)
        parts: list[Batch] = []
        logits: list[Tensor] = []
        places: list[Tensor] = []
        steps = self._order(*gather_rows(domain))
        for number, (current, size) in enumerate(steps):
            place = (domain == current).nonzero().squeeze(1)
            gradients: list[Tensor | None] = [None for _ in moved]
            if len(place):
                part = train.rows(place)
                outputs = self.outputs(self.net, part)
                loss = self.loss(outputs, part)
                self._check_finite(loss, batch_idx)
                # the mean over ranks is to be that over the domain's samples on all of them
                share = loss * (len(place) * world_size() / size)
                gradients = list(torch.autograd.grad(share, moved, allow_unused=True))
                parts.append(part)
                logits.append(outputs["logits"].detach())
                places.append(place)
            self._inner_step(moved, gradients, optimizer, counted=number == len(steps) - 1)
        with torch.no_grad():
            for parameter, first in zip(moved, start, strict=True):
                parameter.copy_(torch.lerp(first, parameter, self.outer_rate))
        # autocast keeps the half-precision copies of the old weights
        torch.clear_autocast_cache()
        back = torch.cat(places).argsort()
        for name in self._told & parts[0].extra.keys():
            train.extra[name] = torch.cat([part.extra[name] for part in parts])[back]
        return {"logits": torch.cat(logits)[back]}, train.extra["sample_loss"].mean()

    def _order(self, domain: Tensor) -> list[tuple[int, int]]:
        """The domains of the batch in a random order, the same on all ranks, with how many samples they have there."""
        present: Tensor
        sizes: Tensor
        present, sizes = torch.unique(domain, return_counts=True)
        keys = present + (self._batch_idx + 1) * (1 << 32)
        order = keyed_random.uniform(self._draw_seed, "order of domains", self.current_epoch, keys).argsort(stable=True)
        return list(zip(present[order].tolist(), sizes[order].tolist(), strict=True))

    def _inner_step(
        self, moved: list[nn.Parameter], gradients: list[Tensor | None], optimizer: Any, counted: bool
    ) -> None:
        if world_size() > 1:
            whole = [torch.zeros_like(p) if g is None else g for p, g in zip(moved, gradients, strict=True)]
            gradients = list(mean_over_ranks(whole))
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.grad = gradient
        self._clip(moved)
        # below Lightning's wrapper all but the last, or it would count each as a step of training
        (optimizer if counted else optimizer.optimizer).step()
        torch.clear_autocast_cache()
