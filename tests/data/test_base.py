"""The data family: what is drawn, and what the loaders serve."""

import numpy as np
import pytest
import torch
from testkit.pixels import CLASSES, COUNT, X_TEST, Y_TEST, X, Y, labels_of, make, one_epoch, ready
from torch import nn

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.data import (
    Arrays,
    CropFlip,
    Exponential,
    InstanceShared,
    PairFlip,
    PerturbationDataModule,
    Symmetric,
    TransitionMatrix,
)

# what is drawn -------------------------------------------------------------------------------------------------------


def test_one_seed_draws_one_label_vector():
    first, second = (ready(label_noise=Symmetric(0.4), val_size=0.2, meta_size=6, seed=3) for _ in range(2))
    for name in ("given_labels", "train_index", "val_index", "meta_index"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert first.checksum == second.checksum
    other = ready(label_noise=Symmetric(0.4), val_size=0.2, meta_size=6, seed=4)
    assert not np.array_equal(first.given_labels, other.given_labels)
    assert not np.array_equal(first.train_index, other.train_index)
    assert first.checksum != other.checksum


def test_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(0)
    np.random.seed(0)
    first = ready(label_noise=Symmetric(0.4), val_size=0.2, augment=CropFlip(padding=1))
    one_epoch(first)
    drawn = float(torch.rand(())), float(np.random.random())
    torch.manual_seed(0)
    np.random.seed(0)
    assert drawn == (float(torch.rand(())), float(np.random.random()))
    assert np.array_equal(
        first.given_labels, ready(label_noise=Symmetric(0.4), val_size=0.2).given_labels
    )  # under another state


def test_setup_twice_draws_once():
    data = ready(label_noise=Symmetric(0.4))
    given = data.given_labels
    data.setup("fit")
    data.setup("validate")
    assert data.given_labels is given


def test_more_noise_does_not_move_the_split():
    parts = [
        ready(label_noise=noise, val_size=0.2, meta_size=6, imbalance=Exponential(3.0))
        for noise in (None, Symmetric(0.1), Symmetric(0.8), PairFlip(0.3))
    ]
    for data in parts[1:]:
        for name in ("train_index", "val_index", "meta_index"):
            assert np.array_equal(getattr(data, name), getattr(parts[0], name))


def test_every_use_draws_from_a_stream_of_its_own():
    data = make(seed=3)
    first = [data._generator(use).random() for use in ("train_size", "meta", "val", "imbalance", "label_noise")]
    assert len(set(first)) == 5


def test_splits_are_disjoint_and_together_the_whole_set():
    data = ready(val_size=0.25, meta_size=9, label_noise=Symmetric(1.0))
    together = np.concatenate([data.train_index, data.val_index, data.meta_index])
    assert sorted(together) == list(range(COUNT))
    assert len(data.meta_index) == 9
    assert np.bincount(data.true_labels[data.meta_index]).tolist() == [3, 3, 3]
    # a share is of what the meta split left
    assert len(data.val_index) == round(0.25 * (COUNT - 9))
    assert not data.noisy[data.meta_index].any()
    assert data.noisy[data.train_index].all()


def test_imbalance_thins_the_training_split_alone():
    data = ready(val_size=12, meta_size=6, imbalance=Exponential(7.0))
    assert np.bincount(data.true_labels[data.val_index]).tolist() == [4, 4, 4]
    assert data.class_counts.tolist() == [14, int(14 / 7**0.5), 2]
    used = {*data.train_index, *data.val_index, *data.meta_index}
    assert len(used) == 21 + 12 + 6
    assert not data.noisy.any()


@pytest.mark.parametrize(("size", "count"), [(30, 30), (0.5, 30), (30.0, 30), (3, 3), (59, 59), (60, 60)])
def test_train_size_keeps_a_stratified_part(size, count):
    data = ready(train_size=size, label_noise=Symmetric(1.0))
    assert len(data.train_index) == count
    counts = np.bincount(data.true_labels[data.train_index], minlength=CLASSES)
    assert counts.max() - counts.min() <= 1
    # what was left away is not corrupted, and positions stay those of the whole set
    assert data.noisy.sum() == count
    assert data.facts.num_samples == COUNT


def test_facts_counts_and_matrix_against_loops():
    data = ready(label_noise=TransitionMatrix([[0.5, 0.5, 0], [0, 1, 0], [0.2, 0.2, 0.6]]), val_size=0.2)
    counts, matrix, wrong = [0] * CLASSES, np.zeros((CLASSES, CLASSES)), 0
    for i in data.train_index:
        true, given = int(data.true_labels[i]), int(data.given_labels[i])
        counts[given] += 1
        matrix[true, given] += 1
        wrong += true != given
    facts = data.facts
    assert (facts.num_samples, facts.num_classes) == (COUNT, CLASSES)
    assert facts.class_counts.tolist() == data.class_counts.tolist() == counts
    assert facts.true_counts.tolist() == data.true_counts.tolist() == matrix.sum(1).astype(int).tolist()
    assert facts.true_counts.tolist() != counts
    assert facts.mean == data.mean
    assert facts.std == data.std
    np.testing.assert_allclose(data.transition_matrix, matrix / matrix.sum(1, keepdims=True))
    assert data.noise_rate == pytest.approx(wrong / len(data.train_index))
    assert 0 < wrong < len(data.train_index)
    assert np.array_equal(data.true_labels, Y)
    assert data.noisy.tolist() == [bool(t != g) for t, g in zip(data.true_labels, data.given_labels, strict=True)]


def test_instance_noise_reads_clean_pixels_with_channels_last():
    class Spy(InstanceShared):
        def corrupt(self, labels, num_classes, generator, inputs, index, total):
            self.seen = inputs, index, total
            return labels

    spy = Spy(0.4)
    data = ready(label_noise=spy, val_size=0.2, meta_size=6, augment=CropFlip(padding=1))
    inputs, index, total = spy.seen
    assert np.array_equal(index, sorted([*data.train_index, *data.val_index]))
    assert np.array_equal(inputs, X.transpose(0, 2, 3, 1)[index])
    assert total == COUNT


def test_an_index_names_the_sample_in_the_full_training_set():
    data = ready(label_noise=Symmetric(0.4), val_size=0.2, meta_size=6, train_size=50)
    x, y, index = one_epoch(data)
    assert sorted(index.tolist()) == data.train_index.tolist()
    assert np.array_equal(x.numpy(), X[index.numpy()])
    assert np.array_equal(y.numpy(), data.given_labels[index.numpy()])
    assert np.array_equal(data.raw_inputs(index[:7]).numpy(), X[index[:7].numpy()])
    assert data.raw_inputs([]).shape == (0, 1, 6, 6)


# workers -------------------------------------------------------------------------------------------------------------


def test_workers_serve_the_same_labels_and_augmentations():
    options = {"label_noise": Symmetric(0.4), "augment": CropFlip(padding=2), "val_size": 0.2}
    for epoch in (0, 3):
        alone = one_epoch(ready(**options), epoch)
        helped = one_epoch(ready(num_workers=2, **options), epoch)
        for a, b in zip(alone, helped, strict=True):
            assert torch.equal(a, b)


def test_spawned_workers_serve_the_same():
    options = {"label_noise": Symmetric(0.4), "augment": CropFlip(padding=2)}
    alone, spawned = one_epoch(ready(**options)), one_epoch(ready(num_workers=1, **options), spawn=True)
    for a, b in zip(alone, spawned, strict=True):
        assert torch.equal(a, b)


def test_an_epoch_changes_order_and_augmentation_but_no_label():
    data = ready(label_noise=Symmetric(0.4), augment=CropFlip(padding=2))
    (x, y, index), (later_x, later_y, later_index) = one_epoch(data), one_epoch(data, epoch=1)
    assert not torch.equal(index, later_index)
    by_index, later = index.argsort(), later_index.argsort()
    assert torch.equal(y[by_index], later_y[later])
    changed = (x[by_index] != later_x[later]).flatten(1).any(1).float().mean()
    assert 0.8 < float(changed) < 1.0 + 1e-9


def test_ranks_share_order_and_augmentation_of_one_process():
    def on(rank, world, batch_size):
        data = make(augment=CropFlip(padding=2), label_noise=Symmetric(0.4), batch_size=batch_size)
        data.setup()
        data.trainer = Ranked(rank, world)
        return list(data.train_dataloader())

    alone = on(0, 1, 16)
    for a, first, second in zip(alone, on(0, 2, 8), on(1, 2, 8), strict=True):
        order = torch.cat([first.index, second.index]).argsort()
        mine = a.index.argsort()
        for name in ("x", "y", "index"):
            together = torch.cat([getattr(first, name), getattr(second, name)])
            assert torch.equal(together[order], getattr(a, name)[mine])


class Ranked:
    """As much of a trainer as a loader looks at."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size, self.current_epoch = rank, world, 0
        self.lightning_module = PerturbationModule(nn.Identity(), CLASSES)


# evaluation ----------------------------------------------------------------------------------------------------------


def test_validation_is_as_noisy_as_training_unless_asked():
    noisy = ready(label_noise=Symmetric(0.9), val_size=0.4)
    shown = labels_of(noisy.val_dataloader())
    assert np.array_equal(shown, noisy.given_labels[noisy.val_index])
    assert (shown != noisy.true_labels[noisy.val_index]).mean() > 0.5
    clean = ready(label_noise=Symmetric(0.9), val_size=0.4, val_labels="clean")
    assert np.array_equal(labels_of(clean.val_dataloader()), clean.true_labels[clean.val_index])
    assert np.array_equal(clean.given_labels, noisy.given_labels)


def test_the_test_split_is_never_corrupted_nor_augmented():
    data = ready(label_noise=Symmetric(1.0), augment=CropFlip(padding=2), imbalance=Exponential(3.0), train_size=40)
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        batches = list(loader)
        assert np.array_equal(torch.cat([b.x for b in batches]).numpy(), X_TEST)
        assert np.array_equal(torch.cat([b.y for b in batches]).numpy(), Y_TEST)


def test_scores_see_the_training_split_in_index_order_without_augmentation():
    data = ready(label_noise=Symmetric(0.4), augment=CropFlip(padding=2), val_size=0.2, eval_batch_size=7)
    batches = list(data.score_dataloader())
    index = torch.cat([b.index for b in batches]).numpy()
    assert np.array_equal(index, data.train_index)
    assert np.array_equal(torch.cat([b.x for b in batches]).numpy(), X[index])
    assert np.array_equal(labels_of(batches), data.given_labels[index])
    assert max(len(b) for b in batches) <= 7


def test_clean_samples_are_served_in_index_order_with_true_labels():
    data = ready(label_noise=Symmetric(0.4), augment=CropFlip(padding=2), meta_size=20, eval_batch_size=7)
    batches = list(data.clean_dataloader())
    index = torch.cat([b.index for b in batches]).numpy()
    assert np.array_equal(index, data.meta_index)
    assert np.array_equal(torch.cat([b.x for b in batches]).numpy(), X[index])
    assert np.array_equal(labels_of(batches), data.true_labels[index])


def test_without_validation_there_is_no_loader():
    assert ready().val_dataloader() == []


@pytest.mark.parametrize("given", [None, 5])
def test_evaluation_batch_size(given):
    data = ready(batch_size=3, eval_batch_size=given, val_size=30)
    assert max(len(batch) for batch in data.val_dataloader()) == (5 if given else 10)
    assert data.eval_batch_size == (given or 12)


# pixels --------------------------------------------------------------------------------------------------------------


def test_normalize_scales_shifts_and_divides():
    data = Arrays(
        np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8),
        np.arange(6) % 2,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
    )
    x = data.read("train")[0]
    expected = (x.numpy() / 255.0 - np.reshape(data.mean, (3, 1, 1))) / np.reshape(data.std, (3, 1, 1))
    out = data.normalize(x)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
    assert x.dtype == torch.uint8
    assert float(data.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))[0, 1]) == pytest.approx(-0.4822 / 0.2435)


def test_without_statistics_pixels_become_shares():
    class Plain(PerturbationDataModule):
        pass

    assert Plain().normalize(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_other_types_pass_unchanged(dtype):
    x = torch.arange(6).to(dtype)
    assert make().normalize(x) is x


def test_every_form_of_batch_is_normalised():
    data = ready()
    x, y = torch.from_numpy(X[:4]), torch.from_numpy(Y[:4])
    expected = data.normalize(x)
    assert torch.equal(data.on_after_batch_transfer(Batch(x, y, y), 0).x, expected)
    views = data.on_after_batch_transfer(Batch((x, x.flip(0)), y), 0).x
    assert torch.equal(views[0], expected)
    assert torch.equal(views[1], expected.flip(0))
    pair = data.on_after_batch_transfer((x, y), 0)
    assert torch.equal(pair[0], expected)
    assert pair[1] is y
