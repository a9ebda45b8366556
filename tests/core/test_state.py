import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_perturb.core.state import StateMixin

few = settings(deadline=None, max_examples=25)


class Keeper(StateMixin):
    """Two per-sample buffers and one per-class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.add_sample_state("v", 3)
        self.add_sample_state("last", fill=float("nan"), dtype=torch.float64)
        self.add_state("counts", torch.zeros(4))


def known(rows: int) -> Keeper:
    module = Keeper()
    module.size_sample_state(rows)
    module._sizes_known = True
    return module


def test_rows_come_with_the_data():
    module = Keeper()
    assert module.v.shape == (0, 3)
    assert module.last.shape == (0,)
    module.size_sample_state(5)
    assert torch.equal(module.v, torch.zeros(5, 3))
    assert module.last.dtype == torch.float64
    assert bool(module.last.isnan().all())
    assert set(module._ddp_params_and_buffers_to_ignore) == {"v", "last", "counts"}
    assert "v" in module.state_dict()


@few
@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True), min_size=1, max_size=6))
def test_rows_appear_as_their_samples_do(batches):
    module, reference = Keeper(), {}
    for number, rows in enumerate(batches):
        index = torch.tensor(rows)
        before = module.read_sample_state("v", index)
        assert before[:, 0].tolist() == [reference.get(row, 0.0) for row in rows]
        module.write_state("v", index, torch.full((len(rows), 3), number + 1.0))
        reference.update(dict.fromkeys(rows, number + 1.0))
    highest = max(max(rows) for rows in batches)
    assert len(module.v) == len(module.last) > highest
    assert module.v[:, 2].tolist() == [reference.get(row, 0.0) for row in range(len(module.v))]


def test_writing_replaces_or_adds():
    module = known(4)
    index = torch.tensor([1, 1, 3])
    module.write_state("v", index, torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 3), accumulate=True)
    assert module.v[:, 0].tolist() == [0, 3, 0, 3]
    module.write_state("v", torch.tensor([1]), torch.ones(1, 3, dtype=torch.bfloat16))
    assert module.v[:, 0].tolist() == [0, 1, 0, 3]
    assert module.v.dtype == torch.float32
    module.write_state("counts", torch.tensor([2]), torch.tensor([5.0]))
    assert module.counts.tolist() == [0, 0, 5, 0]


def test_no_gradient_enters_the_state():
    module = known(2)
    module.write_state("v", torch.tensor([0]), module.layer.weight.sum().expand(1, 3))
    assert not module.v.requires_grad


def test_reading_gives_a_copy():
    module = known(2)
    module.read_sample_state("v", torch.tensor([0])).fill_(9)
    assert float(module.v.sum()) == 0


def test_a_checkpoint_brings_its_rows():
    saved = known(6)
    saved.write_state("v", torch.tensor([5]), torch.ones(1, 3))
    fresh = Keeper()
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh.v, saved.v)
    nested = nn.Sequential(Keeper())
    nested.load_state_dict({f"0.{k}": v for k, v in saved.state_dict().items()})
    assert torch.equal(nested[0].v, saved.v)
    # a file on the disk must not be written through
    fresh.write_state("v", torch.tensor([0]), torch.ones(1, 3))
    assert float(saved.v[0].sum()) == 0


def test_another_size_is_an_error_at_a_resume_only():
    saved = known(6).state_dict()
    resumed = known(7)
    resumed._resuming = True
    with pytest.raises(ValueError, match=r"'v' of 6 training samples, the data now has 7.*lightning_perturb.load"):
        resumed.load_state_dict(saved)
    tested = known(7)
    tested.load_state_dict(saved)
    assert len(tested.v) == 6
    unsized = Keeper()
    unsized._resuming = True
    unsized.load_state_dict(saved)
    assert len(unsized.v) == 6


def test_reset_gives_first_values_and_no_rows():
    # a module that was trained before and now trains anew, perhaps on other data of the same size
    module = known(6)
    module.write_state("v", torch.tensor([1]), torch.ones(1, 3))
    module.size_sample_state(6)
    assert float(module.v.sum()) == 3
    module.reset_state()
    assert module.v.shape == (0, 3)
    module.size_sample_state(6)
    assert float(module.v.abs().sum()) == 0, "rows of other samples"


def test_a_row_that_comes_twice_is_written_once_and_the_last_counts():
    module = known(4)
    module.write_state("v", torch.tensor([2, 0, 2]), torch.tensor([1.0, 5.0, 3.0])[:, None].expand(3, 3))
    assert module.v[:, 0].tolist() == [5.0, 0.0, 3.0, 0.0]


def test_copies_are_apart():
    module = known(3)
    other = copy.deepcopy(module)
    other.write_state("v", torch.tensor([0]), torch.ones(1, 3))
    assert float(module.v.sum()) == 0
    other.load_state_dict(known(5).state_dict())
    assert len(module.v) == 3


def test_a_sample_that_the_data_does_not_have_is_told():
    module = known(3)
    for act in (
        lambda index: module.read_sample_state("v", index),
        lambda index: module.write_state("v", index, torch.zeros(1, 3)),
    ):
        with pytest.raises((IndexError, ValueError)):
            act(torch.tensor([3]))


def test_half_precision_rows():
    module = known(2).half()
    assert module.v.dtype == torch.float16
    module.write_state("v", torch.tensor([0]), torch.ones(1, 3))
    assert isinstance(module.read_sample_state("v", torch.tensor([0])), Tensor)
