"""What a meta-learned adjuster is as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lightning_perturb.nets.adjuster import ROBUST_LOSSES, Adjuster

Snapshot = dict[str, Any]

FORMAT = "lightning_perturb adjuster"
_SETTINGS = ("robust_loss", "scale", "low", "high", "offset", "soft_range", "hidden")


def take(adjuster: Adjuster, epoch: int, epochs: int, provenance: Mapping[str, Any] | None = None) -> Snapshot:
    """An adjuster as it is now.

    Args:
        adjuster: The adjuster.
        epoch: Epochs that it has learned.
        epochs: Epochs of the whole run.
        provenance: How it was made, in plain words and numbers.

    Returns:
        Numbers, words and tensors on the CPU: its weights, the name of the loss, d', scale, clamps, offset, soft range,
        width, epoch and provenance.
    """
    settings = {name: getattr(adjuster, name) for name in _SETTINGS}
    return {
        "format": FORMAT,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "outputs": len(adjuster.robust.names),
        "epoch": epoch,
        "epochs": epochs,
        "weights": {name: value.detach().cpu().clone() for name, value in adjuster.state_dict().items()},
        "provenance": dict(provenance or {}),
    }


def restore(snapshot: Any, where: str) -> Adjuster:
    """The frozen adjuster of a snapshot.

    Args:
        snapshot: What :func:`take` gave.
        where: What names it in an error, such as its file.

    Raises:
        ValueError: If it is no snapshot, or its loss, number of outputs, width and weights do not fit together.
    """
    if not isinstance(snapshot, Mapping) or snapshot.get("format") != FORMAT:
        raise ValueError(
            f"{where} is no snapshot of an adjuster. Give what NARLAdjuster wrote into its folder 'adjuster'."
        )
    missing = [name for name in (*_SETTINGS, "outputs", "epoch", "epochs", "weights") if name not in snapshot]
    if missing:
        raise ValueError(f"{where} lacks {missing[0]!r}. Give a whole snapshot, as NARLAdjuster wrote it.")
    loss = snapshot["robust_loss"]
    if loss not in ROBUST_LOSSES:
        raise ValueError(f"{where} adjusts the loss {loss!r}, which is none of: {', '.join(ROBUST_LOSSES)}.")
    names = ROBUST_LOSSES[loss].names
    if snapshot["outputs"] != len(names):
        raise ValueError(
            f"{where} has {snapshot['outputs']} output(s), but {loss!r} has {len(names)} hyperparameter(s): "
            f"{', '.join(names)}. Train the adjuster anew."
        )
    # without memory, and above all without first weights, which would move the random state of the run
    with torch.device("meta"):
        adjuster = Adjuster(**{name: snapshot[name] for name in _SETTINGS})
    expected = {name: tuple(value.shape) for name, value in adjuster.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in snapshot["weights"].items()}
    if found != expected:
        raise ValueError(
            f"{where} has weights of the shapes {found}, but hidden={snapshot['hidden']} asks for {expected}. Take a "
            "snapshot whose settings were not changed."
        )
    adjuster.load_state_dict(snapshot["weights"], assign=True)
    return adjuster.requires_grad_(False)
