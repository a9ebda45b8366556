import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import Recipe, all_moments, fit, resume

from lightning_perturb.callbacks import HyperparameterReport, LossReport, Recorder, Records
from lightning_perturb.callbacks.hyperparameters import sample_hyperparameters
from lightning_perturb.callbacks.recorder import told_means
from lightning_perturb.methods import GCE, CrossEntropy, MetaMixPert, MetaWeightNet, NARLAdjuster


class ByHand(Callback):
    """What the steps told, sample by sample, and the mean loss beside the mean of the samples'."""

    def __init__(self):
        self.rows = {}
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append((float(outputs["loss"]), float(outputs["sample_loss"].mean())))
        told = {name: values for name, values in outputs.items() if "hyperparameter" in name}
        for name, values in told.items():
            assert not values.requires_grad
            for i, value in zip(outputs["index"].tolist(), values.tolist(), strict=True):
                self.rows[name, trainer.current_epoch, i] = value


METHODS = {
    "weight": Recipe(MetaWeightNet),
    "alpha": Recipe(MetaMixPert),
    "q": Recipe(NARLAdjuster, options={"meta_every": 2}),
    "gamma1/gamma2": Recipe(NARLAdjuster, options={"robust_loss": "sl", "meta_every": 2}),
    "polysoft": Recipe(NARLAdjuster, options={"robust_loss": "polysoft", "meta_every": 2}),
}


@pytest.mark.parametrize("name", METHODS)
def test_records_and_draws_what_the_method_told(name, tmp_path):
    by_hand, report, losses = ByHand(), HyperparameterReport(), LossReport()
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    recipe = METHODS[name].but(trainer={"logger": logger})
    trainer = fit(recipe, callbacks=[Recorder(), by_hand, report, losses])
    folder = tmp_path / "run" / "version_0"
    records = Records.open(folder)
    told = {"weight": ["weight"], "alpha": ["alpha"], "q": ["q"], "gamma1/gamma2": ["gamma1", "gamma2"],
            "polysoft": ["d", "lam"]}[name]  # fmt: skip
    assert [key for key in records.told if key.startswith("hyper")] == [f"hyperparameter/{one}" for one in told]
    assert len(by_hand.rows) == len(told) * 3 * 96
    for (key, epoch, i), value in by_hand.rows.items():
        assert records.told[key][epoch, i] == pytest.approx(value, rel=2e-3, abs=1e-6)
    for whole, mean in by_hand.losses:
        assert whole == pytest.approx(mean, rel=1e-5)

    true = trainer.datamodule.true_labels
    noisy = (records.given != true) & (records.given >= 0)
    for key in (f"hyperparameter/{told[0]}", "sample_loss"):
        last = np.asarray(records.told[key][-1], dtype=np.float64)
        for group, part in {"": records.given >= 0, "_clean": (records.given == true), "_noisy": noisy}.items():
            assert float(trainer.callback_metrics[f"train/{key}{group}"]) == pytest.approx(last[part].mean(), rel=1e-3)

    derived = {"gamma1/gamma2": ["gamma1_over_gamma2"], "polysoft": ["weight"]}.get(name, [])
    expected = {"hyperparameters_by_margin.png"}
    expected |= {f"hyperparameter_{one}{end}.png" for one in (*told, *derived) for end in ("", "_by_epoch")}
    assert {path.name for path in report.paths} == expected
    assert [path.name for path in losses.paths] == ["training_loss.png"]
    assert all(path.parent == folder and path.stat().st_size > 5000 for path in (*report.paths, *losses.paths))
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {path.stem for path in (*report.paths, *losses.paths)} <= set(events.Tags()["images"])
    assert f"train/hyperparameter/{told[0]}_noisy" in events.Tags()["scalars"]


def test_derived_numbers_by_hand(tmp_path):
    fit(METHODS["polysoft"], callbacks=[Recorder(str(tmp_path / "p"))])
    records = Records.open(tmp_path / "p")
    weight = sample_hyperparameters(records)["weight"]
    loss, lam, d = (np.asarray(t[2], dtype=np.float64) for t in (
        records.loss, records.told["hyperparameter/lam"], records.told["hyperparameter/d"],
    ))  # fmt: skip
    for i in np.flatnonzero(records.given >= 0):
        expected = max(1 - loss[i] / lam[i], 0.0) ** (1 / (d[i] - 1))
        assert weight[2, i] == pytest.approx(expected, rel=5e-3, abs=1e-4)
    fit(METHODS["gamma1/gamma2"], callbacks=[Recorder(str(tmp_path / "s"))])
    records = Records.open(tmp_path / "s")
    ratio = sample_hyperparameters(records)["gamma1/gamma2"]
    first, second = (np.asarray(records.told[f"hyperparameter/gamma{k}"], dtype=np.float64) for k in (1, 2))
    np.testing.assert_allclose(ratio, first / second, rtol=2e-3)


def test_a_method_without_hyperparameters_draws_its_loss_alone(tmp_path):
    report, losses = HyperparameterReport(str(tmp_path)), LossReport(str(tmp_path / "deep"))
    fit(Recipe(GCE, options={"q": 0.5}), callbacks=[Recorder(str(tmp_path / "r")), report, losses])
    assert report.paths == []
    assert losses.paths == [tmp_path / "deep" / "training_loss.png"]
    records = Records.open(tmp_path / "r")
    seen = records.given >= 0
    expected = (1 - np.exp(-0.5 * np.asarray(records.loss, dtype=np.float64))) / 0.5
    np.testing.assert_allclose(records.told["sample_loss"][:, seen], expected[:, seen], rtol=5e-3, atol=1e-3)


def test_warm_up_has_no_hyperparameters(tmp_path):
    recipe = METHODS["weight"].but(options={"warmup_epochs": 1})
    report = HyperparameterReport(str(tmp_path))
    fit(recipe, callbacks=[Recorder(str(tmp_path / "r")), report])
    told = Records.open(tmp_path / "r").told["hyperparameter/weight"]
    assert np.isnan(told[0]).all()
    assert (~np.isnan(told[1:])).sum() == 2 * 96
    assert len(report.paths) == 3


def test_resume_keeps_the_curves(tmp_path):
    recipe = METHODS["weight"].but(options={"warmup_epochs": 1})
    fit(recipe, callbacks=[*all_moments(tmp_path / "checkpoints"), Recorder(str(tmp_path / "whole"))])
    whole = Records.open(tmp_path / "whole").told
    paths = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    assert len(paths) == 7
    for path in paths:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*are gone.*")
            resume(recipe, path, callbacks=[Recorder(str(tmp_path / path.stem))])
        if path.stem.endswith("=18"):
            continue
        found = Records.open(tmp_path / path.stem).told
        assert found.keys() == whole.keys() == {"hyperparameter/weight", "sample_loss"}
        for name, values in whole.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{path.stem} {name}")


def _weights(batch_size, **trainer):
    return METHODS["weight"].but(data={"batch_size": batch_size}, trainer=trainer)


def _on_rank(folder):
    trainer = fit(_weights(8, strategy="ddp", devices=2), callbacks=[Recorder(folder)])
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_two_ranks_tell_what_one_process_tells(ranks, tmp_path):
    one = fit(_weights(16), callbacks=[Recorder(str(tmp_path / "one"))])
    both = ranks(_on_rank, str(tmp_path / "two"))
    expected, found = Records.open(tmp_path / "one"), Records.open(tmp_path / "two")
    assert found.told.keys() == expected.told.keys()
    for name, values in expected.told.items():
        np.testing.assert_allclose(found.told[name], values, rtol=5e-3, atol=5e-3)
    for name in ("train/hyperparameter/weight_clean", "train/hyperparameter/weight_noisy", "train/sample_loss"):
        assert both[0][name] == both[1][name]
        assert both[0][name] == pytest.approx(float(one.callback_metrics[name]), rel=5e-3)


class Uneven(CrossEntropy):
    """Tells one number in odd batches, and another on one rank alone."""

    def perturb_loss(self, loss, logits, batch):
        if self._batch_idx % 2:
            self.tell(batch, "odd", batch.index.float())
        if self.global_rank == 1:
            self.tell(batch, "a_name_of_rank_1", 2.0 * batch.index)
        self.tell(batch, "two words", loss)
        self.tell(batch, "margin", loss)
        return loss


def _uneven_on_rank(folder):
    recipe = Recipe(Uneven, data={"batch_size": 8}, trainer={"strategy": "ddp", "devices": 2, "max_epochs": 1})
    return len(fit(recipe, callbacks=[Recorder(folder), *all_moments(Path(folder) / "c", every=3)]).callbacks)


def test_batches_and_ranks_may_tell_different_numbers(tmp_path, ranks):
    ranks(_uneven_on_rank, str(tmp_path))
    told = Records.open(tmp_path).told
    # names that are no file's, or a table's own, are left out
    assert sorted(told) == ["a_name_of_rank_1", "odd", "sample_loss"]
    index = np.arange(96)
    for name, factor, number in (("odd", 1.0, 48), ("a_name_of_rank_1", 2.0, 48), ("sample_loss", None, 96)):
        known = ~np.isnan(told[name][0])
        assert known.sum() == number
        if factor is not None:
            np.testing.assert_array_equal(told[name][0][known], factor * index[known])


def test_means_of_groups():
    told = {"a": np.array([1.0, 3.0, np.nan, 8.0]), "b": np.full(4, np.nan)}
    given, true = np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])
    assert told_means(told, given, true) == {"a": 4.0, "a_clean": 2.0, "a_noisy": 8.0}
    assert told_means(told, given, None) == {"a": 4.0}
    assert "a_noisy" not in told_means(told, given, given)
    assert math.isclose(told_means(told, given, given)["a_clean"], 4.0)
