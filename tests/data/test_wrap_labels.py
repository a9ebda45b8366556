"""Where a wrapped set's labels and classes come from, and what cannot be corrupted."""

import numpy as np
import pytest
import torch
from testkit.foreign import CLASSES, SIZE, TRUE, Foreign, Numbered, Pictures, ready
from torch.utils.data import (
    ConcatDataset,
    Subset,
    TensorDataset,
)

from lightning_perturb.data import Symmetric, Wrap


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (Numbered(label=float), {}, "label of training sample 0 is float, not a class id"),
        (Numbered(label=str), {}, "label of training sample 0 is str"),
        (Numbered(label=lambda y: 0.5 * np.eye(5)[y]), {}, r"float64 of shape \(5,\), and not all of it is 0 or 1"),
        (Numbered(label=lambda y: np.zeros((2, 2))), {}, r"float64 of shape \(2, 2\), not a class id"),
        (Numbered(label=lambda y: y - 1), {}, r"labels\[0\]=-1 is outside 0..3"),
        (Numbered(), {"num_classes": 4}, r"labels\[4\]=4 is outside 0..3"),
        (Numbered(layout="bare"), {}, "training set is a Tensor"),
        (Numbered(layout="ordered"), {}, r"label_key=None .* keys \['pixels', 'fine'\]"),
        (Numbered(layout="dict"), {"label_key": "fine"}, "label_key='fine'"),
        (Numbered(), {"label_key": 2}, "label_key=2 .* 2 parts"),
        (Numbered(layout="namedtuple"), {"label_key": "z"}, r"named \['x', 'y'\]"),
        (Numbered(), {"meta_size": 500}, "meta_size=500"),
    ],
)
def test_labels_that_cannot_be_corrupted_are_named(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        ready(Foreign(dataset), **arguments)


# where labels come from ---------------------------------------------------------------------------------------------


def test_targets_of_a_data_set_are_taken_once_a_few_samples_agree():
    data = Pictures()
    wrap = ready(Foreign(data), label_noise=Symmetric(0.4))
    assert np.array_equal(wrap.true_labels, data.targets)
    assert len(data.read) <= 12
    assert set(np.array(data.targets)[data.read]) == set(range(10))
    assert wrap.class_names == [f"c{c}" for c in range(10)]


def test_targets_are_not_believed_where_samples_disagree_or_are_transformed():
    transformed = Pictures(target_transform=lambda y: y // 2)
    assert np.array_equal(ready(Foreign(transformed)).true_labels, np.array(transformed.targets) // 2)

    class Shifted(Pictures):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x, {9: 0}.get(y, y)

    shifted = Shifted()
    assert np.array_equal(ready(Foreign(shifted)).true_labels, np.array(shifted.targets) % 9)
    assert sorted(set(shifted.read)) == list(range(300))


def test_labels_are_found_below_subsets_and_concatenations():
    first = Subset(Subset(Pictures(), range(50, 250)), torch.randperm(200)[:80].tolist())
    second = TensorDataset(torch.rand(40, 8, 8, 3), torch.arange(40) % 10)
    joined = ConcatDataset([first, Subset(second, range(30))])
    joined_labels = [int(joined[i][1]) for i in range(len(joined))]
    first.dataset.dataset.read.clear()
    wrap = ready(Foreign(joined), label_noise=Symmetric(0.4))
    assert wrap.true_labels.tolist() == joined_labels
    assert len(first.dataset.dataset.read) <= 12
    assert ready(Foreign(first)).class_names == [f"c{c}" for c in range(10)]


def test_a_subset_of_a_tensor_dataset_gets_flipped_labels():
    data = Subset(TensorDataset(torch.arange(100.0), torch.arange(100) % 4), range(10, 90))
    wrap = ready(Foreign(data), label_noise=Symmetric(0.5))
    for x, y in wrap.train_dataloader():
        assert np.array_equal(y, wrap.given_labels[x.long() - 10])
    assert np.array_equal(wrap.true_labels, np.arange(10, 90) % 4)


def test_labels_are_read_by_workers_too():
    assert np.array_equal(ready(Foreign(num_workers=2)).true_labels, TRUE)


def test_a_label_that_changes_is_an_error():
    class Restless(Numbered):
        calls = 0

        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            self.calls += 1
            return x, y if self.calls <= SIZE + 1 else (y + 1) % CLASSES

    wrap = ready(Foreign(Restless()))
    with pytest.raises(ValueError, match=r"Restless gives training sample .* the label"):
        next(iter(wrap.train_dataloader()))


# number of classes --------------------------------------------------------------------------------------------------


def test_num_classes_comes_from_the_argument_the_module_or_the_labels():
    class Says(Foreign):
        num_classes = 6

    assert Wrap(Says(), num_classes=7).num_classes == 7
    assert Wrap(Says()).num_classes == 6
    counted = Wrap(Foreign())
    assert counted.class_names == []
    with pytest.raises(ValueError, match=r"num_classes=None, and Foreign .* Give num_classes"):
        _ = counted.num_classes
    counted.setup("fit")
    assert counted.num_classes == CLASSES


def test_what_needs_setup_says_so():
    for name in ("facts", "noise_rate", "class_counts", "noisy", "transition_matrix", "checksum"):
        with pytest.raises(RuntimeError, match="Call setup"):
            getattr(Wrap(Foreign()), name)
    with pytest.raises(RuntimeError, match="Call setup"):
        Wrap(Foreign()).train_dataloader()
