"""Opening a checkpoint without knowing what made it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lightning_perturb.core.module import CHECKPOINT_KEY, PerturbationModule


def subclasses(cls: type[PerturbationModule] = PerturbationModule) -> Iterator[type[PerturbationModule]]:
    """Every imported subclass, each once, in order of definition."""
    seen: set[type] = set()
    stack = [cls]
    while stack:
        current = stack.pop(0)
        for sub in current.__subclasses__():
            if sub not in seen:
                seen.add(sub)
                stack.append(sub)
                yield sub


def check_whole(path: Path) -> None:
    """Raises a ValueError for a checkpoint file that is cut off, or none at all."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} cannot be read as a checkpoint. It may be cut off: use an older one.")


def load(path: str | Path, **kwargs: Any) -> PerturbationModule:
    """Opens a checkpoint of any method, on the CPU and without executing code from the file.

    Args:
        path: The ``.ckpt`` file.
        **kwargs: Arguments that the checkpoint does not hold, such as ``net=`` when the run was started from Python
            with a live network.

    Returns:
        The module, in evaluation mode; ``.net`` is the plain network.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint of this package, is cut off, or misses arguments.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file. Give the .ckpt file that training wrote.")
    check_whole(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"path={str(path)!r} holds more than plain data and tensors, and is not opened: it could execute code."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"path={str(path)!r} cannot be read as a checkpoint ({error}). It may be cut off: use an older one."
        ) from error
    saved = checkpoint.get(CHECKPOINT_KEY, {}) if isinstance(checkpoint, dict) else {}
    name = saved.get("class")
    if name is None:
        raise ValueError(f"path={str(path)!r} was not written by a lightning_perturb method.")
    import_module("lightning_perturb.methods")  # here, since it imports this module
    import_module("lightning_perturb.nets")
    found = [cls for cls in subclasses() if f"{cls.__module__}.{cls.__qualname__}" == name]
    if not found:
        raise ValueError(f"The checkpoint is of class {name}, which is not imported. Import its module first.")
    hyper_parameters = checkpoint.get("hyper_parameters", {})
    missing = [name for name in saved.get("live", []) if name not in kwargs]
    if missing:
        raise ValueError(
            f"path={str(path)!r} was trained from Python with live objects, which are not in the file. "
            f"Call load(path, {', '.join(f'{name}=your_{name}' for name in missing)})."
        )
    if "num_classes" not in kwargs and "num_classes" not in hyper_parameters:
        raise ValueError(f"path={str(path)!r} does not hold num_classes. Call load(path, num_classes=...).")
    module = found[0].load_from_checkpoint(path, map_location="cpu", weights_only=True, **kwargs)
    return module.eval()
