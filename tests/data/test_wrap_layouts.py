"""Samples, labels and collate functions of every layout, wrapped."""

import numpy as np
import pytest
import torch
from testkit.foreign import TRUE, Foreign, Numbered, Ours, Text, attached, ready
from torch import nn
from torch.utils.data import (
    default_collate,
)

from lightning_perturb.data import Symmetric

# layouts and types of labels ----------------------------------------------------------------------------------------


def _int32(y):
    return np.int32(y)


def _array(y):
    return np.array([y], dtype=np.int16)


def _column(y):
    return torch.tensor([y], dtype=torch.uint8)


@pytest.mark.parametrize("layout", ["tuple", "list", "namedtuple", "dict", "ordered"])
@pytest.mark.parametrize("label", [int, _int32, _array, _column, torch.tensor])
def test_the_types_of_sample_and_label_are_kept(layout, label):
    seen = []

    def keep(samples):
        seen.extend(samples)
        return default_collate(samples)

    data = Numbered(layout=layout, label=label)
    key = "fine" if layout == "ordered" else None
    wrap = ready(Foreign(data, collate_fn=keep), label_noise=Symmetric(1.0), label_key=key)
    seen.clear()
    for _ in wrap.score_dataloader():
        pass
    place = {"dict": "label", "ordered": "fine"}.get(layout, 1)
    for i, sample in enumerate(seen):
        before, after = data[i][place], sample[place]
        assert type(sample) is type(data[i])
        assert type(after) is type(before)
        assert getattr(after, "dtype", None) == getattr(before, "dtype", None)
        assert getattr(after, "shape", None) == getattr(before, "shape", None)
        assert int(np.asarray(after).item()) == wrap.given_labels[i] != TRUE[i]
        if isinstance(sample, dict):
            assert list(sample) == list(data[i])


def test_a_column_of_labels_becomes_a_vector_for_our_methods():
    wrap = attached(ready(Foreign(Numbered(label=_column))), Ours())
    batch = next(iter(wrap.train_dataloader()))
    assert batch.y.shape == (16,)
    assert batch.y.dtype == torch.int64


def test_the_sample_of_the_data_set_is_left_alone():
    kept = [{"x": torch.zeros(1), "y": i % 2} for i in range(20)]
    wrap = ready(Foreign(kept), label_noise=Symmetric(1.0))
    for _ in wrap.train_dataloader():
        pass
    assert [sample["y"] for sample in kept] == [i % 2 for i in range(20)]


# collate ------------------------------------------------------------------------------------------------------------


def _padded(samples):
    x, y = zip(*samples, strict=True)
    return nn.utils.rnn.pad_sequence(list(x), batch_first=True), torch.tensor(y)


def _longest_first(samples):
    return default_collate(sorted(samples, key=lambda sample: -sample[0][0]))


def _as_words(samples):
    return {"input_ids": torch.stack([x for x, _ in samples]), "labels": torch.tensor([y for _, y in samples])}


def test_a_custom_collate_function_is_kept():
    wrap = ready(Foreign(Text(), collate_fn=_padded, shuffle=False, batch_size=8), label_noise=Symmetric(0.5))
    for start, (x, y) in zip(range(0, 40, 8), wrap.train_dataloader(), strict=True):
        assert x.shape == (8, max(i % 7 + 1 for i in range(start, start + 8)))
        assert np.array_equal(y, wrap.given_labels[start : start + 8])
    batch = next(iter(attached(wrap, Ours()).train_dataloader()))
    assert np.array_equal(batch.index, np.arange(8))


def test_the_layout_after_collating_may_differ_from_that_of_samples():
    wrap = attached(ready(Foreign(collate_fn=_as_words), label_noise=Symmetric(0.4)), Ours())
    batch = next(iter(wrap.train_dataloader()))
    assert torch.equal(batch.x["input_ids"][:, 0].long(), batch.index)
    assert np.array_equal(batch.y, wrap.given_labels[batch.index])


def test_a_collate_function_that_sorts_serves_others_but_not_the_index():
    wrap = ready(Foreign(collate_fn=_longest_first))
    assert len(list(wrap.train_dataloader())) == 13
    with pytest.raises(ValueError, match=r"collate_fn .* do not stand in order"):
        next(iter(attached(wrap, Ours()).train_dataloader()))
