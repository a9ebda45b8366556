"""The global generators, which foreign code draws from: seeded for a while, and then as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seeds the generators of Python, NumPy and PyTorch on the CPU.

    Args:
        seed: From 0 to 2^32 - 1, which is what NumPy takes.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what foreign code draws from
    # torch.manual_seed would also reach for CUDA, which a forked worker must not touch
    torch.default_generator.manual_seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Puts the three generators back at the end, whatever happened inside."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(pytorch)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs what is inside from a seed, and leaves no trace of it in the three generators.

    Args:
        seed: From 0 to 2^32 - 1.
    """
    with generators_kept():
        seed_generators(seed)
        yield
