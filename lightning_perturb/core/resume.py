"""Random state and rank-local tensors of every rank, in the checkpoint.

Lightning saves neither: a resumed run would otherwise draw other dropout masks than the uninterrupted one.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.core.distributed import gather_objects, rank, world_size


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's, PyTorch's and CUDA's generators as plain numbers and tensors."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what users' code draws from
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what :func:`random_state` took."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    saved = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", saved["key"].numpy().astype(np.uint32), saved["pos"], saved["has_gauss"], saved["gauss"])
    )
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def save_ranks(local: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Every rank's random state and rank-local tensors; must be called on all ranks."""
    cpu = {name: tensor.detach().cpu() for name, tensor in local.items()}
    return gather_objects({"random": random_state(), "local": cpu})


def restore_rank(saved: list[dict[str, Any]]) -> dict[str, Tensor] | None:
    """Restores this rank's random state and returns its rank-local tensors, or None when the world has another size."""
    if len(saved) != world_size():
        warnings.warn(
            f"The checkpoint was written by {len(saved)} processes and is resumed on {world_size()}: dropout masks and "
            "rank-local state start anew. Samples, augmentation and sample-keyed draws are unaffected.",
            stacklevel=2,
        )
        return None
    mine = saved[rank()]
    restore_random_state(mine["random"])
    local: dict[str, Tensor] = mine["local"]
    return local
