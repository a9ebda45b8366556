"""What all tests share: the pool of two ranks, an environment that tests leave as they found it, the GPU marker."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# tests import their helpers as testkit.*; at the end of the path, where nothing can be shadowed
sys.path.append(str(Path(__file__).parent))

from testkit.ranks import Ranks, look_up_plugins_once

# tiny tensors: a second thread costs more than it gives, and two processes share the cores with the ranks
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Where tests have imported Lightning, its Trainers look for plugins once."""
    if "lightning" in sys.modules:
        look_up_plugins_once()


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Calls a function on two gloo ranks: ``ranks(function, *args)`` gives both results."""
    pool = Ranks()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    """Seeds and the switches that trainers flip do not reach the next test."""
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    dtype = torch.get_default_dtype()
    yield
    for name, value in seeds.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    torch.set_default_dtype(dtype)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
