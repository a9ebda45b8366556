"""A wrapped module is set up once and serves the same everywhere: workers, ranks, resumes."""

import random
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from testkit.foreign import Foreign, Numbered, Ours, Split, Theirs, ready, rows, trainer

from lightning_perturb.data import Symmetric, Wrap


def test_setup_runs_once_for_each_stage_and_the_loader_is_asked_once():
    inner = Split()
    wrap, module = Wrap(inner, label_noise=Symmetric(0.4)), Theirs()
    for _ in range(2):
        t = trainer()
        t.fit(module, wrap)
        t.test(module, wrap, verbose=False)
    t.validate(module, wrap, verbose=False)
    assert inner.setups == ["fit", "test", "validate"]
    assert inner.asked == 1


def test_an_unseeded_split_is_the_same_every_time_and_leaves_no_trace():
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    untouched = (torch.rand(2).tolist(), np.random.random(), random.random())
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    first = ready(Split(), label_noise=Symmetric(0.4))
    assert (torch.rand(2).tolist(), np.random.random(), random.random()) == untouched
    second = ready(Split(), label_noise=Symmetric(0.4))
    assert first.datamodule.train.indices == second.datamodule.train.indices
    assert first.datamodule.shift == second.datamodule.shift
    assert first.checksum == second.checksum
    assert ready(Split(), label_noise=Symmetric(0.4), seed=1).datamodule.train.indices != first.datamodule.train.indices
    before = first.datamodule.train.indices
    first.setup("validate")
    assert first.datamodule.train.indices == before


def test_more_noise_moves_neither_split_nor_order():
    wraps = [ready(label_noise=noise, meta_size=20, val_size=0.1) for noise in (None, Symmetric(0.2), Symmetric(0.9))]
    orders = [[x[:, 0].tolist() for x, _ in wrap.train_dataloader()] for wrap in wraps]
    assert orders[0] == orders[1] == orders[2]
    assert np.array_equal(wraps[0].meta_index, wraps[2].meta_index)


def test_workers_see_the_same_labels_and_augmentation_and_the_main_stream_is_left_alone():
    served = []
    for workers in (0, 2):
        wrap = ready(Foreign(Numbered(96, noise=True), num_workers=workers), label_noise=Symmetric(0.4))
        loader = wrap.train_dataloader()
        torch.manual_seed(5)
        epochs = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            epochs.append(rows(loader))
        served.append((epochs, torch.rand(3)))
    (without, after), (with_two, after_two) = served
    assert torch.equal(after, after_two)
    for first, second in zip(without, with_two, strict=True):
        for (x, y), (x_two, y_two) in zip(first, second, strict=True):
            assert torch.equal(x, x_two)
            assert torch.equal(y, y_two)
    # the augmentation is random between samples and epochs, and uniform
    (one, two) = (torch.cat([x for x, _ in epoch]) for epoch in without)
    one, two = one[one[:, 0].argsort()], two[two[:, 0].argsort()]
    assert (one[:, 1:] != two[:, 1:]).all()
    assert one[:, 1:].flatten().unique().numel() == one[:, 1:].numel()
    assert abs(float(one[:, 1:].mean()) - 0.5) < 0.06


class OnRank(Wrap):
    place: ClassVar[tuple[int, int]] = (0, 1)

    @property
    def _ranks(self):
        return self.place


def test_two_ranks_together_see_what_one_process_sees():
    def served(place, batch_size):
        wrap = OnRank(Foreign(Numbered(96, noise=True), batch_size=batch_size), label_noise=Symmetric(0.4))
        wrap.place = place
        wrap.setup("fit")
        return rows(wrap.train_dataloader())

    one = served((0, 1), 16)
    two = zip(served((0, 2), 8), served((1, 2), 8), strict=True)
    for (x, y), parts in zip(one, two, strict=True):
        x_two, y_two = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        assert torch.equal(x[x[:, 0].argsort()], x_two[x_two[:, 0].argsort()])
        assert torch.equal(y[x[:, 0].argsort()], y_two[x_two[:, 0].argsort()])


# resume -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "steps", "loader"),
    [
        (Theirs, (7, 14, 28), {}),
        (Theirs, (21,), {"num_workers": 2}),
        (Theirs, (21,), {"num_workers": 1, "persistent_workers": True}),
        (Ours, (21, 35), {}),
    ],
)
def test_a_resume_inside_an_epoch_ends_in_the_same_weights(make, steps, loader, tmp_path):
    def run(path=None, **kwargs):
        torch.manual_seed(0)
        module = make()
        wrap = Wrap(Foreign(Numbered(noise=True), **loader), label_noise=Symmetric(0.4))
        trainer(3, **kwargs).fit(module, wrap, ckpt_path=path, weights_only=True)
        return module.state_dict()

    # 13 steps make an epoch
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)
    whole = run(callbacks=[saver], enable_checkpointing=True)
    for step in steps:
        resumed = run(tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_data_at_a_resume_is_an_error(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="last")
    trainer(callbacks=[saver], enable_checkpointing=True).fit(Theirs(), Wrap(Foreign(), label_noise=Symmetric(0.4)))
    path = tmp_path / "last.ckpt"
    others = (Wrap(Foreign(), label_noise=Symmetric(0.2)), Wrap(Foreign(Numbered(180)), label_noise=Symmetric(0.4)))
    for other in others:
        with pytest.raises(ValueError, match="data differs from that of the checkpoint"):
            trainer(2).fit(Theirs(), other, ckpt_path=path, weights_only=True)
