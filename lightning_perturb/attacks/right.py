"""Which samples of a batch are classified right, with and without an attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_perturb.attacks.attack import Attack
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.evaluated import EvaluatedModule
from lightning_perturb.core.inputs import Normalised, float_input
from lightning_perturb.core.logits import logits_in
from lightning_perturb.core.modes import attackable

_REMEDY = "Evaluate without an attack on such data."


def right_under(
    attacks: Sequence[Attack],
    module: LightningModule,
    batch: Batch,
    keys: Tensor,
    normalised: Normalised | None = None,
    seed: int = 0,
    rows: Tensor | None = None,
) -> Tensor:
    """Which samples are classified right: as they are, and under each attack.

    An attack tries those alone that stand all attacks before it, so a sample counts as right under an attack if it is
    right under the ones before, too: give balls from the smallest to the largest, or several attacks in one ball.

    The module is asked for what it predicts by (``evaluation_logits``; one of another project for ``module(x)``), in
    evaluation mode. It leaves no trace: parameters' gradients, statistics, modes and random states stay as they are.
    Outside, gradients may be off, inference mode included.

    Args:
        attacks: The attacks.
        module: The module.
        batch: Inputs as the network gets them, and class ids.
        keys: One integer of each sample that names it in random draws ``[B]``.
        normalised: How pixels were normalised, where an attack's space does not say.
        seed: Seed of the attacks' starts.
        rows: Places of the samples that are looked at ``[R]``; None for all.

    Returns:
        In bool, ``[R, 1 + attacks]``.

    Raises:
        ValueError: If inputs are no float tensor, or no pixels where they are to stay such, or labels no class ids.
    """
    y = batch.y
    if y.ndim != 1 or y.is_floating_point():
        raise ValueError(
            f"An attack turns one class into another, but labels are of shape {tuple(y.shape)} and type {y.dtype}, "
            "not class ids [B]. Evaluate multi-label and soft labels without an attack."
        )
    x = float_input("An attack", batch, _REMEDY)
    if rows is not None:
        x, y, keys = x[rows], y[rows], keys[rows]
    if not len(y):
        return torch.zeros(0, 1 + len(attacks), dtype=torch.bool, device=y.device)
    for attack in attacks:
        attack.space.check(x, normalised)
    model, decide = _classifier(module)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), attackable(module), torch.random.fork_rng(devices):
        # what was made in inference mode can enter no graph; clones can
        x, y, keys = x.detach().clone(), y.long().clone(), keys.clone()
        with torch.no_grad():
            right = decide(model(x)) == y
        found = [right]
        for attack in attacks:
            rows = right.nonzero()[:, 0]
            right = right.clone()
            if len(rows):
                right[rows] = attack.survivors(model, x[rows], y[rows], keys[rows], normalised, decide, seed)
            found.append(right)
        return torch.stack(found, 1)


def _classifier(module: LightningModule) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """What the module predicts by, and how it decides."""
    if isinstance(module, EvaluatedModule):
        own = module
        return (
            lambda x: own.evaluation_logits(x).float(),
            lambda logits: own.predictions(own.probabilities(logits)),
        )

    def logits_of(x: Tensor) -> Tensor:
        logits: Any = logits_in(module(x))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"{type(module).__name__}(x) gives {shape} where an attack reads logits [B, C]. Let its forward return "
                "them: a tensor, a tuple that starts with it, or an object with .logits."
            )
        return logits.float()

    return logits_of, lambda logits: logits.argmax(1)
