import shutil
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from testkit.training import Recipe, all_moments, fit, resume

from lightning_perturb.callbacks import Recorder, Records
from lightning_perturb.methods import CrossEntropy, LogPert

NAMES = ("margin", "loss", "prediction", "perturbation_norm", "given")


def tables(folder):
    records = Records.open(folder)
    found = {name: np.array(getattr(records, name)) for name in NAMES}
    return {**found, **{name: np.array(values) for name, values in records.told.items()}}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run of 3 epochs with a checkpoint at every kind of moment, and its tables."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe(LogPert, net="dropout", data={"val_size": 16, "samples": 112, "augment": True})
    fit(recipe, callbacks=[*all_moments(folder / "checkpoints"), Recorder(str(folder / "records"))])
    return recipe, folder, tables(folder)


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("*.ckpt"))


def test_every_checkpoint_leads_to_the_same_tables(run, tmp_path):
    recipe, folder, whole = run
    paths = checkpoints(folder)
    # steps 4, 8, 12 (the last batch of epoch 1), 16; and the ends of the three epochs before and after validation
    assert len(paths) == 10
    assert whole["margin"].shape == (3, 112)
    for path in paths:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*are gone.*")
            resume(recipe, path, callbacks=[Recorder(str(tmp_path / path.stem))])
        if not path.stem.endswith("=18"):
            assert_same(whole, tables(tmp_path / path.stem))
    # the old run was only read
    assert_same(whole, tables(folder))


def test_checkpoints_hold_tensors_and_only_the_open_epoch(run):
    _, folder, _ = run
    for path in checkpoints(folder):
        state = torch.load(path, weights_only=True)["callbacks"]["Recorder"]
        kind, steps = path.stem.split("-")[0], int(path.stem.split("=")[1])
        # after the end of an epoch nothing is open; in an epoch as many batches of 16 as were trained
        rows = 0 if kind == "epoch" else 16 * ((steps - 1) % 6 + 1)
        assert state["ids"].shape == (rows, 3), path.name
        told = sorted(state["names"])
        assert told == (["perturbation_norm", "sample_loss"] if rows else [])
        assert state["values"].shape == (rows, 2 + len(told)), path.name


def test_resume_in_the_same_folder_overwrites_later_rows(run, tmp_path):
    recipe, folder, whole = run
    shutil.copytree(folder / "records", tmp_path / "records")
    (path,) = [p for p in checkpoints(folder) if p.stem == "batch-step=8"]
    # another seed for what the rest of the run draws would give other rows: nothing may stay of the old ones
    for name in ("margin", "loss"):
        table = np.load(tmp_path / "records" / f"{name}.npy", mmap_mode="r+")
        table[1:] = 77
        table.flush()
    resume(recipe, path, callbacks=[Recorder(str(tmp_path / "records"))])
    # the checkpoint names the old folder, where row 0 is the same
    assert_same(whole, tables(tmp_path))


def test_older_checkpoint_drops_rows_of_the_abandoned_future(tmp_path):
    recipe = Recipe(LogPert)
    fit(recipe, callbacks=[*all_moments(tmp_path / "checkpoints"), Recorder(str(tmp_path / "records"))])
    (path,) = [p for p in checkpoints(tmp_path) if p.stem == "epoch-step=6"]
    resume(recipe.but(trainer={"max_epochs": 2}), path, callbacks=[Recorder(str(tmp_path / "records"))])
    assert len(Records.open(tmp_path)) == 2


def test_moved_run_folder_is_found(run, tmp_path):
    recipe, _, whole = run
    first = tmp_path / "first"
    fit(recipe, callbacks=[*all_moments(first / "checkpoints"), Recorder(str(first / "records"))])
    first.rename(tmp_path / "moved")
    (path,) = [p for p in checkpoints(tmp_path / "moved") if p.stem == "batch-step=16"]
    resume(recipe, path, callbacks=[Recorder(str(tmp_path / "new"))])
    assert_same(whole, tables(tmp_path / "new"))


def test_lost_files_warn_and_leave_nan(run, tmp_path):
    recipe, folder, whole = run
    (path,) = [p for p in checkpoints(folder) if p.stem == "batch-step=16"]
    shutil.copy(path, tmp_path / "alone.ckpt")
    shutil.move(folder / "records", folder / "hidden")
    try:
        with pytest.warns(UserWarning, match="records of 2 of the 2 epochs before this resume are gone"):
            resume(recipe, tmp_path / "alone.ckpt", callbacks=[Recorder(str(tmp_path / "records"))])
    finally:
        shutil.move(folder / "hidden", folder / "records")
    found = tables(tmp_path)
    assert np.isnan(found["margin"][:2]).all()
    assert (found["prediction"][:2] == -1).all()
    np.testing.assert_array_equal(found["margin"][2], whole["margin"][2])


def test_recorder_that_joins_at_a_resume(tmp_path):
    recipe = Recipe(CrossEntropy)
    fit(recipe, callbacks=all_moments(tmp_path / "elsewhere"))
    resume(recipe, tmp_path / "elsewhere" / "epoch-step=6.ckpt", callbacks=[Recorder(str(tmp_path / "records"))])
    margin = Records.open(tmp_path).margin
    assert np.isnan(margin[0]).all()
    assert not np.isnan(margin[1:]).any()


class Broken(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 9:
            raise RuntimeError("power cut")


def test_evaluation_of_a_checkpoint_leaves_the_next_fit_alone(run, tmp_path):
    recipe, folder, whole = run
    (path,) = [p for p in checkpoints(folder) if p.stem == "batch-step=8"]
    recorder = Recorder(str(tmp_path / "records"))
    with pytest.raises(RuntimeError, match="power cut"):
        fit(recipe, callbacks=[recorder, Broken()])
    trainer = fit(recipe.but(trainer={"max_epochs": 1}), callbacks=[Recorder(str(tmp_path / "other"))])
    trainer.callbacks.append(recorder)
    trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, ckpt_path=path, verbose=False)
    fit(recipe.but(trainer={"max_epochs": 1}), callbacks=[recorder])
    np.testing.assert_array_equal(tables(tmp_path)["margin"], whole["margin"][:1])


def test_stopped_inside_an_epoch_and_resumed(run, tmp_path):
    recipe, _, whole = run
    trainer = fit(recipe.but(trainer={"max_steps": 10}), callbacks=[Recorder(str(tmp_path / "cut" / "records"))])
    before = tables(tmp_path / "cut")
    assert (~np.isnan(before["margin"])).sum(1).tolist() == [96, 64]
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    resume(recipe, tmp_path / "cut.ckpt", callbacks=[Recorder(str(tmp_path / "records"))])
    # Lightning counts the epoch as over: what was written of it stays
    np.testing.assert_array_equal(tables(tmp_path)["margin"][:2], before["margin"])
    np.testing.assert_array_equal(before["margin"][0], whole["margin"][0])


def test_nothing_left_to_train(run, tmp_path):
    recipe, folder, whole = run
    for kind in ("validation", "batch"):
        (path,) = [p for p in checkpoints(folder) if p.stem == f"{kind}-step=12"]
        # the last batch of epoch 1 was trained, its end was not seen
        resume(recipe.but(trainer={"max_epochs": 2}), path, callbacks=[Recorder(str(tmp_path / kind))])
        np.testing.assert_array_equal(tables(tmp_path / kind)["margin"], whole["margin"][:2])


class BeforeValidation(Callback):
    def on_validation_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")


@pytest.mark.filterwarnings("error:.*are gone.*")
def test_killed_between_the_last_batch_and_the_end_of_its_epoch(run, tmp_path):
    recipe, _, whole = run
    callbacks = [*all_moments(tmp_path / "checkpoints"), Recorder(str(tmp_path / "records")), BeforeValidation()]
    with pytest.raises(RuntimeError, match="power cut"):
        fit(recipe, callbacks=callbacks)
    assert len(Records.open(tmp_path)) == 1
    resume(recipe, tmp_path / "checkpoints" / "batch-step=12.ckpt", callbacks=[Recorder(str(tmp_path / "records"))])
    assert_same(whole, tables(tmp_path))
