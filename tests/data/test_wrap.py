"""Label noise, imbalance and splits for data modules of other projects."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule
from testkit.foreign import (
    CLASSES,
    SIZE,
    TRUE,
    Foreign,
    Numbered,
    Ours,
    OursWithTwoViews,
    Pictures,
    Split,
    Text,
    Theirs,
    attached,
    ready,
    trainer,
)
from torch.utils.data import (
    DataLoader,
    TensorDataset,
)

from lightning_perturb.core import Batch
from lightning_perturb.data import Exponential, InstanceShared, PairFlip, Symmetric, Wrap

# a module of another project ----------------------------------------------------------------------------------------


def test_a_foreign_module_trains_on_flipped_labels_and_tests_on_clean_ones():
    wrap, module = Wrap(Split(), label_noise=Symmetric(0.4)), Theirs()
    t = trainer(2)
    t.fit(module, wrap)
    t.test(module, wrap, verbose=False)
    subset = wrap.datamodule.train.indices
    position = {original: place for place, original in enumerate(subset)}
    pairs = module.pairs()
    assert len(pairs) == 2 * 150
    assert {p for p, _ in pairs} == set(subset)
    assert all(y == wrap.given_labels[position[p]] for p, y in pairs)
    assert np.array_equal(wrap.true_labels, TRUE[subset])
    flipped = np.mean([y != TRUE[p] for p, y in pairs])
    assert flipped == pytest.approx(wrap.noise_rate)
    assert 0.28 < flipped < 0.52  # 3 standard deviations of 150 draws
    assert all(y == TRUE[p] for p, y in module.pairs("val") + module.pairs("test"))
    first, second = pairs[:150], pairs[150:]
    assert first != second
    assert sorted(first) == sorted(second)


def test_the_realized_noise_is_described():
    wrap = ready(label_noise=PairFlip(0.5))
    assert np.array_equal(wrap.noisy, wrap.given_labels != TRUE)
    assert wrap.transition_matrix.shape == (CLASSES, CLASSES)
    assert np.allclose(np.diag(wrap.transition_matrix).mean(), 1 - wrap.noise_rate)
    assert wrap.class_counts.sum() == SIZE
    assert wrap.facts.num_samples == SIZE
    assert wrap.facts.num_classes == wrap.num_classes == CLASSES
    assert wrap.class_names == ["0", "1", "2", "3", "4"]


def test_without_noise_the_samples_are_the_foreign_ones():
    wrap = ready(Foreign(shuffle=False))
    for (x, y), (x_foreign, y_foreign) in zip(
        wrap.train_dataloader(), DataLoader(Numbered(), batch_size=16), strict=True
    ):
        assert torch.equal(x, x_foreign)
        assert torch.equal(y, y_foreign)


# our modules --------------------------------------------------------------------------------------------------------


def test_our_method_gets_the_index():
    wrap, module = Wrap(Foreign(), label_noise=Symmetric(0.4)), Ours()
    t = trainer()
    t.fit(module, wrap)
    index = torch.cat([b.index for b in module.batches])
    assert all(type(b) is Batch for b in module.batches)
    assert torch.equal(torch.cat([b.x for b in module.batches])[:, 0].long(), index)
    assert np.array_equal(torch.cat([b.y for b in module.batches]).numpy(), wrap.given_labels[index.numpy()])
    assert sorted(index.tolist()) == list(range(SIZE))
    assert np.array_equal(module.facts.class_counts, np.bincount(wrap.given_labels))


def test_two_views_are_two_augmentations_of_the_same_samples():
    wrap = attached(ready(Foreign(Numbered(noise=True))), OursWithTwoViews())
    for batch in wrap.train_dataloader():
        first, second = batch.x
        assert torch.equal(first[:, 0].long(), batch.index)
        assert torch.equal(second[:, 0].long(), batch.index)
        assert (first[:, 1:] != second[:, 1:]).all()


@pytest.mark.parametrize(
    ("layout", "key"), [("dict", None), ("ordered", "fine"), ("namedtuple", None), ("namedtuple", "y"), ("triple", 2)]
)
def test_other_layouts_become_our_batch(layout, key):
    wrap = attached(ready(Foreign(Numbered(layout=layout)), label_noise=Symmetric(0.4), label_key=key), Ours())
    for batch in wrap.train_dataloader():
        x = batch.x["pixels"] if layout == "ordered" else batch.x
        assert torch.equal(x[:, 0].long(), batch.index)
        assert np.array_equal(batch.y, wrap.given_labels[batch.index])


def test_further_fields_travel_along():
    data = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20) % 2, torch.arange(20) * 3)
    wrap = attached(ready(Foreign(data)), Ours())
    for batch in wrap.train_dataloader():
        assert torch.equal(batch.extra["part_2"], batch.index * 3)


# splits -------------------------------------------------------------------------------------------------------------


def test_the_meta_split_is_clean_disjoint_and_balanced_in_every_batch():
    wrap = ready(Foreign(batch_size=10), label_noise=Symmetric(1.0), meta_size=40)
    assert not set(wrap.meta_index) & set(wrap.train_index)
    assert len(wrap.meta_index) + len(wrap.train_index) == SIZE
    assert np.array_equal(wrap.given_labels[wrap.meta_index], TRUE[wrap.meta_index])
    loader = wrap.meta_dataloader()
    passes = [[(x[:, 0].long().tolist(), y.tolist()) for x, y in loader] for _ in range(2)]
    for served in passes:
        assert sorted(p for xs, _ in served for p in xs) == wrap.meta_index.tolist()
        for xs, ys in served:
            assert ys == TRUE[xs].tolist()
            assert np.bincount(ys).tolist() == [2] * CLASSES
    assert passes[0] != passes[1]
    trained = {p for x, _ in wrap.train_dataloader() for p in x[:, 0].long().tolist()}
    assert trained == set(wrap.train_index)
    batch = next(iter(attached(wrap, Ours()).meta_dataloader()))
    assert torch.equal(batch.x[:, 0].long(), batch.index)
    with pytest.raises(ValueError, match="meta_size=0"):
        ready().meta_dataloader()


def test_imbalance_thins_out_the_training_split_alone():
    wrap = ready(imbalance=Exponential(10), meta_size=20)
    counts = np.bincount(TRUE[wrap.train_index])
    assert counts[0] / counts[-1] >= 9
    assert np.array_equal(wrap.class_counts, counts)
    assert sum(len(y) for _, y in wrap.train_dataloader()) == counts.sum()


@pytest.mark.parametrize("val_labels", ["given", "clean"])
def test_a_carved_validation_split_is_in_order_and_as_noisy_as_asked(val_labels):
    wrap = Wrap(Foreign(), label_noise=Symmetric(1.0), val_size=0.2, val_labels=val_labels)
    module = Theirs()
    trainer(num_sanity_val_steps=0).fit(module, wrap)
    expected = wrap.given_labels if val_labels == "given" else TRUE
    assert module.pairs("val") == [(p, expected[p]) for p in wrap.val_index]
    assert {p for p, _ in module.pairs()} == set(wrap.train_index)
    fresh = Wrap(Foreign(), label_noise=Symmetric(1.0), val_size=0.2, val_labels=val_labels)
    fresh.setup("validate")
    assert np.array_equal(fresh.val_index, wrap.val_index)


def test_scores_are_served_in_index_order_and_the_same_every_time():
    wrap = ready(Foreign(Numbered(noise=True)), label_noise=Symmetric(0.4), meta_size=20)
    first, second = (torch.cat([x for x, _ in wrap.score_dataloader()]) for _ in range(2))
    assert first[:, 0].long().tolist() == wrap.train_index.tolist()
    assert torch.equal(first, second)
    labels = torch.cat([y for _, y in wrap.score_dataloader()])
    assert np.array_equal(labels, wrap.given_labels[wrap.train_index])
    clean = list(wrap.clean_dataloader())
    assert torch.cat([x for x, _ in clean])[:, 0].long().tolist() == wrap.meta_index.tolist()
    assert np.array_equal(torch.cat([y for _, y in clean]), TRUE[wrap.meta_index])


# inputs -------------------------------------------------------------------------------------------------------------


def test_raw_inputs_are_stacked_as_the_data_set_gives_them():
    assert ready().raw_inputs([3, 1])[:, 0].tolist() == [3.0, 1.0]
    data = Pictures()
    assert np.array_equal(ready(Foreign(data)).raw_inputs(np.array([5, 2])), data.data[[5, 2]])
    with pytest.raises(ValueError, match="cannot be stacked"):
        ready(Foreign(Text())).raw_inputs([0, 1])
    with pytest.raises(ValueError, match="names no single input"):
        ready(Foreign(Numbered(layout="ordered")), label_key="fine").raw_inputs([0])


def test_raw_inputs_of_pictures_have_channels_first():
    from PIL import Image

    colour, grey = Pictures(transform=Image.fromarray), Pictures(transform=lambda x: Image.fromarray(x[:, :, 0]))
    assert np.array_equal(ready(Foreign(colour)).raw_inputs([4]), colour.data[[4]].transpose(0, 3, 1, 2))
    assert np.array_equal(ready(Foreign(grey)).raw_inputs([4]), grey.data[[4], None, :, :, 0])


def test_noise_that_looks_at_inputs_gets_the_clean_samples():
    data = Pictures(transform=lambda x: torch.from_numpy(x).permute(2, 0, 1))
    wrap = ready(Foreign(data), label_noise=InstanceShared(0.4))
    direct = InstanceShared(0.4)(data.targets, 10, np.random.default_rng([0, *b"label_noise"]), inputs=data.data)
    assert np.array_equal(wrap.given_labels, direct)


def test_pixel_statistics_reach_the_method():
    wrap = ready(mean=(0.5,), std=(0.25,))
    assert wrap.facts.mean == (0.5,)
    assert wrap.facts.std == (0.25,)


def test_the_command_line_can_build_it():
    noise = {"class_path": "lightning_perturb.data.Symmetric", "init_args": {"rate": 0.4}}
    inner = {"class_path": f"{BoringDataModule.__module__}.BoringDataModule"}
    wrap = {"datamodule": inner, "label_noise": noise, "num_classes": 2, "label_key": 1, "meta_size": 10}
    data = {"class_path": "lightning_perturb.data.Wrap", "init_args": wrap}
    cli = LightningCLI(
        Theirs,
        L.LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args={"data": data},
    )
    assert isinstance(cli.datamodule.datamodule, BoringDataModule)
    assert cli.datamodule.label_noise.rate == 0.4
    assert cli.datamodule.num_classes == 2
