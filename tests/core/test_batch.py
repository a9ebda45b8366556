import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_perturb.core import Batch

few = settings(deadline=None, max_examples=25)


def tensors(size: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(size, 3), torch.arange(size) % 4, torch.arange(size) + 7


@few
@given(
    st.integers(1, 5), st.booleans(), st.sampled_from(["plain", "views", "listed views", "mapping"]),
    st.sampled_from([tuple, list, "mapping", "batch"]), st.sampled_from(["y", "label", "labels", "target"]),
    st.sampled_from(["x", "input", "image"]),
)  # fmt: skip
def test_every_form_that_a_loader_may_give(size, indexed, kind, form, y_name, x_name):
    plain, y, index = tensors(size)
    x = {"plain": plain, "views": (plain, plain + 1), "listed views": [plain, plain + 1], "mapping": {"ids": plain}}[
        kind
    ]
    if form in (tuple, list):
        given_batch = form([x, y, index] if indexed else [x, y])
    elif form == "mapping":
        given_batch = {x_name: x, y_name: y, "mask": y > 1, "name": ["a"] * size} | (
            {"index": index} if indexed else {}
        )
    else:
        given_batch = Batch(tuple(x) if isinstance(x, list) else x, y, index if indexed else None)
    batch = Batch.of(given_batch)
    assert len(batch) == size
    assert batch.y is y
    assert batch.index is (index if indexed else None)
    if kind == "mapping":
        assert batch.view["ids"] is plain
    else:
        assert batch.view is plain
    if "views" in kind:
        assert isinstance(batch.x, tuple)
        assert torch.equal(batch.x[1], plain + 1)
    assert set(batch.extra) == ({"mask"} if form == "mapping" else set())
    assert Batch.of(batch) is batch


def test_tokenised_text_needs_no_name_for_its_input():
    ids, mask, y = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3), torch.tensor([0, 1])
    batch = Batch.of(
        {"input_ids": ids, "attention_mask": mask, "labels": y, "index": torch.tensor([4, 5]), "text": ["a", "b"]}
    )
    assert set(batch.x) == {"input_ids", "attention_mask"}
    assert batch.y is y
    assert batch.index.tolist() == [4, 5]
    assert batch.extra == {}


@pytest.mark.parametrize("wrong", [torch.zeros(3), "text", (torch.zeros(3),), (1, 2, 3, 4), None])
def test_another_form_is_told(wrong):
    with pytest.raises(ValueError, match=r"Yield \(x, y\), \(x, y, index\)"):
        Batch.of(wrong)


@pytest.mark.parametrize(("y", "index"), [("a", None), (torch.zeros(2), [0, 1])])
def test_labels_that_are_no_tensor_are_named(y, index):
    with pytest.raises(ValueError, match=f"labels of the batch are of type {type(y).__name__}.*collate"):
        Batch.of((torch.zeros(2, 3), y) if index is None else (torch.zeros(2, 3), y, index))


def test_a_mapping_without_labels_is_told_with_its_keys():
    with pytest.raises(ValueError, match=r"\['image', 'size'\] has no labels"):
        Batch.of({"image": torch.zeros(3), "size": torch.zeros(3)})


def test_moving_keeps_everything():
    x, y, index = tensors(3)
    batch = Batch((x, {"a": x}["a"]), y, index, {"mask": y > 1})
    moved = batch.to(torch.float64)
    assert (
        moved.x[0].dtype
        == moved.x[1].dtype
        == moved.y.dtype
        == moved.index.dtype
        == moved.extra["mask"].dtype
        == torch.float64
    )
    assert batch.x[0].dtype == torch.float32
    assert Batch({"a": x}, y).to("meta").x["a"].device.type == "meta"
    assert Batch({"a": x}, y).to("meta").index is None


def test_lightning_converts_its_floats():
    # 64-true and bf16-true do this to what the loader gives
    x, y, index = tensors(3)
    converted = apply_to_collection(
        Batch(x, y, index, {"mix": x[:, 0]}), Tensor, lambda t: t.double() if t.is_floating_point() else t
    )
    assert isinstance(converted, Batch)
    assert converted.x.dtype == converted.extra["mix"].dtype == torch.float64
    assert converted.index.dtype == torch.int64


def test_workers_can_send_it():
    x, y, index = tensors(3)
    again = pickle.loads(pickle.dumps(Batch(x, y, index, {"mask": y > 1})))
    assert torch.equal(again.x, x)
    assert torch.equal(again.extra["mask"], y > 1)


def test_another_input_leaves_the_batch():
    x, y, index = tensors(3)
    batch = Batch(x, y, index)
    other = batch.with_input(x + 1)
    assert batch.x is x
    assert torch.equal(other.x, x + 1)
    assert other.index is index
