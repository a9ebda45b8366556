from pathlib import Path

import numpy as np
import torch
from testkit.training import Recipe, Saves, fit, resume

from lightning_perturb.callbacks import Recorder, Records
from lightning_perturb.methods import LogPert


def recipe(batch_size, **trainer):
    return Recipe(LogPert, data={"batch_size": batch_size}, trainer=trainer)


def _on_rank(folder):
    folder = Path(folder)
    recorder = Recorder(str(folder / "records"))
    saves = Saves(folder, "batch", every_n_train_steps=4)
    trainer = fit(recipe(8, strategy="ddp", devices=2), callbacks=[recorder, saves])
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_two_ranks_write_what_one_process_writes(ranks, tmp_path):
    one = fit(recipe(16), callbacks=[Recorder(str(tmp_path / "one"))])
    metrics = ranks(_on_rank, str(tmp_path / "two"))
    expected, found = Records.open(tmp_path / "one"), Records.open(tmp_path / "two")
    np.testing.assert_array_equal(found.given, expected.given)
    assert found.margin.shape == (3, 96)
    for name in ("margin", "loss", "perturbation_norm"):
        # the weights agree to the rounding of float32, the tables to that of float16
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-3, atol=2e-3)
    assert np.mean(found.prediction == expected.prediction) > 0.99
    for result in metrics:
        for name in ("train/acc", "train/acc_true", "train/memorised"):
            assert abs(result[name] - float(one.callback_metrics[name])) < 0.02

    # a checkpoint inside the epoch holds the rows of both ranks, and one process goes on with them
    path = tmp_path / "two" / "batch-step=4.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]["Recorder"]
    assert len(state["ids"]) == 64
    assert len(set(state["ids"][:, 0].tolist())) == 64
    resume(recipe(16), path, callbacks=[Recorder(str(tmp_path / "three"))])
    third = Records.open(tmp_path / "three")
    np.testing.assert_allclose(third.margin[0], expected.margin[0], rtol=2e-3, atol=2e-3)
