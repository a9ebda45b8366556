import io
import random

import numpy as np
import pytest
import torch

from lightning_perturb.core.resume import random_state, restore_random_state, restore_rank, save_ranks


def draws() -> list[float]:
    return [
        random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(())),
        float(torch.nn.functional.dropout(torch.ones(50), 0.5).sum()),
    ]  # fmt: skip


def stored(value):
    """Through a file, without executing code from it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_all_generators_go_on(before):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    for _ in range(before):
        # an odd number of normal draws leaves the spare one of the pair in the state
        draws()
    state = stored(random_state())
    expected = [draws(), draws()]
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert draws() != expected[0]
    restore_random_state(state)
    assert [draws(), draws()] == expected


def test_rank_tensors_come_back():
    kept = {"x": torch.rand(3, 2), "y": torch.arange(3)}
    saved = stored(save_ranks(kept))
    expected = draws()
    found = restore_rank(saved)
    assert draws() == expected
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_another_number_of_processes_is_told_and_touches_nothing():
    saved = save_ranks({}) * 2
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match=r"written by 2 processes and is resumed on 1"):
        assert restore_rank(saved) is None
    assert torch.equal(torch.get_rng_state(), state)
