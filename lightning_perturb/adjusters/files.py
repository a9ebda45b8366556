"""Snapshots of adjusters as files, and those that the package ships."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from lightning_perturb.adjusters.snapshot import Snapshot, restore

#: snapshots of a run: after a third, after two thirds and at its end
SNAPSHOTS = 3

_SHIPPED = Path(__file__).parent / "shipped"


def shipped() -> list[str]:
    """Names of the adjusters that came with the package."""
    return sorted(path.name for path in _SHIPPED.iterdir() if path.is_dir()) if _SHIPPED.is_dir() else []


def write(snapshot: Snapshot, path: Path) -> None:
    """Writes a snapshot; the file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(snapshot, draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path) -> Snapshot:
    """Reads a snapshot, without executing code from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no snapshot.
    """
    if not path.is_file():
        raise FileNotFoundError(f"adjuster={str(path)!r} is not a file. Give a snapshot that NARLAdjuster wrote.")
    where = f"adjuster={str(path)!r}"
    found: Any = None
    if zipfile.is_zipfile(path):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            raise ValueError(
                f"{where} cannot be read as plain data. Give a snapshot that NARLAdjuster wrote."
            ) from error
    restore(found, where)
    snapshot: Snapshot = found
    return snapshot


def read_all(source: str | list[str], robust_loss: str | None = None) -> list[Snapshot]:
    """The snapshots that an argument names, in the order in which a run uses them.

    Args:
        source: One file, a list of three files in order, a folder with three, or the name of a shipped adjuster.
        robust_loss: The loss that they must be of; None takes any.

    Raises:
        FileNotFoundError: If there is no such file, folder or shipped adjuster.
        ValueError: If a file is no snapshot, there are not one or three, or they are of another loss, or of several
            losses or widths.
    """
    paths = _paths(source)
    snapshots = [read(path) for path in paths]
    if isinstance(source, str):
        # files of a folder have no order of their own; they were written in that of their epochs
        snapshots.sort(key=lambda snapshot: snapshot["epoch"])
    first = snapshots[0]
    for path, snapshot in zip(paths, snapshots, strict=True):
        found = snapshot["robust_loss"]
        if robust_loss is not None and found != robust_loss:
            raise ValueError(
                f"adjuster={str(path)!r} was learned for the loss {found!r}, not for robust_loss={robust_loss!r}. Give "
                "a snapshot of that loss, or leave robust_loss away."
            )
        for name in ("robust_loss", "hidden"):
            if snapshot[name] != first[name]:
                raise ValueError(
                    f"adjuster={source!r} mixes snapshots of {name} {first[name]!r} and {snapshot[name]!r}. Give "
                    "snapshots of one run."
                )
    return snapshots


def _paths(source: str | list[str]) -> list[Path]:
    if isinstance(source, str):
        path = Path(source)
        if path.is_file():
            return [path]
        if not path.is_dir() and source in shipped():
            path = _SHIPPED / source
        if not path.is_dir():
            names = f", and none of the shipped ones: {', '.join(shipped())}" if shipped() else ""
            raise FileNotFoundError(
                f"adjuster={source!r} is neither a file nor a folder{names}. Give a snapshot that NARLAdjuster wrote, "
                "or its folder 'adjuster'."
            )
        paths = sorted(path.glob("*.pt"))
    else:
        paths = [Path(name) for name in source]
    if len(paths) != SNAPSHOTS:
        raise ValueError(
            f"adjuster={source!r} gives {len(paths)} snapshots. Give one file, or {SNAPSHOTS}: those after a third, "
            "after two thirds and at the end of a run."
        )
    return paths
