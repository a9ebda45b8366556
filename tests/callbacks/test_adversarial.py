"""The share of adversarial samples."""

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import Recipe, Saves, fit, resume

from lightning_perturb.callbacks import AdversarialReport
from lightning_perturb.methods import IADA, CrossEntropy

RECIPE = Recipe(
    IADA, {"strategy": "testkit.strategies.by_label", "warmup_epochs": 1, "eps_scale": 0.01}, data={"samples": 96}
)


class ByHand(Callback):
    """Who was adversarial in each epoch, sample by sample."""

    def __init__(self):
        self.rows = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if "epsilon" not in outputs:
            return
        for epsilon, y, i in zip(*(outputs[k].tolist() for k in ("epsilon", "y", "index")), strict=True):
            self.rows[trainer.current_epoch, i] = (y, epsilon > 0)


def shares(rows, epoch, keep):
    chosen = [hit for (e, i), (y, hit) in rows.items() if e == epoch and keep(i, y)]
    return sum(chosen) / len(chosen)


def test_counts_are_those_by_hand(tmp_path, monkeypatch):
    drawn = {}
    from lightning_perturb.callbacks import adversarial

    for name in ("adversarial_by_class", "adversarial_over_epochs"):
        original = getattr(adversarial, name)
        monkeypatch.setattr(adversarial, name, lambda *a, n=name, f=original: (drawn.update({n: a}), f(*a))[1])
    report, by_hand = AdversarialReport(last_epochs=1), ByHand()
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    trainer = fit(RECIPE.but(trainer={"logger": logger}), callbacks=[report, by_hand])
    data, rows = trainer.datamodule, by_hand.rows
    assert {epoch for epoch, _ in rows} == {1, 2}, "there is no perturbation in the warm-up"
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    clean, noisy = (lambda i, y: not data.noisy[i]), (lambda i, y: data.noisy[i])
    for name, keep in (("", lambda i, y: True), ("_clean", clean), ("_noisy", noisy)):
        assert abs(logged[f"train/adversarial{name}"] - shares(rows, 2, keep)) < 1e-6
    assert 0 < logged["train/adversarial_clean"] < logged["train/adversarial_noisy"]

    by_class, sizes, names = drawn["adversarial_by_class"]
    for c in range(10):
        assert abs(by_class[c] - shares(rows, 2, lambda i, y, c=c: y == c)) < 1e-6
        assert sizes[c] == data.class_counts[c]
    assert by_class[3] == 0
    assert names == [str(c) for c in range(10)]
    (curves,) = drawn["adversarial_over_epochs"]
    assert curves["noisy"][0] == [1, 2]
    assert curves["noisy"][1] == [shares(rows, epoch, noisy) for epoch in (1, 2)]

    assert [path.name for path in report.paths] == ["adversarial_by_class.png", "adversarial_over_epochs.png"]
    assert all(path.parent == tmp_path / "run" / "version_0" and path.stat().st_size > 1000 for path in report.paths)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert set(events.Tags()["images"]) == {"adversarial_by_class", "adversarial_over_epochs"}


def test_clean_labels_are_one_group(tmp_path):
    report = AdversarialReport(folder=str(tmp_path))
    trainer = fit(RECIPE.but(data={"noise": 0.0}), callbacks=[report])
    assert "train/adversarial_noisy" not in trainer.callback_metrics
    assert len(report.paths) == 2
    # a second fit with the same callback starts anew
    first = report.table()[1]
    fit(RECIPE.but(data={"noise": 0.0}), callbacks=[report])
    assert torch.equal(report.table()[1], first)


def test_a_method_without_strategies_is_not_drawn(tmp_path):
    report = AdversarialReport(folder=str(tmp_path / "none"))
    trainer = fit(Recipe(CrossEntropy), callbacks=[report])
    assert report.paths == []
    assert not (tmp_path / "none").exists()
    assert not any("adversarial" in name for name in trainer.callback_metrics)


def test_a_resumed_run_goes_on_counting(tmp_path):
    whole = AdversarialReport(folder=str(tmp_path / "whole"))
    fit(RECIPE, callbacks=[whole, Saves(tmp_path, "batch", every_n_train_steps=1)])
    expected = whole.table()
    for step in (3, 6, 8, 12, 15):
        rest = AdversarialReport(folder=str(tmp_path / "rest"))
        resume(RECIPE, tmp_path / f"batch-step={step}.ckpt", callbacks=[rest])
        found = rest.table()
        assert found[0] == expected[0]
        assert torch.equal(found[1], expected[1]), step


def test_the_first_checkpoints_called_the_sums_counts():
    counts = torch.arange(40).view(1, 2, 10, 2)
    report = AdversarialReport()
    report.load_state_dict({"epochs": [3], "counts": counts})
    epochs, sums = report.table()
    assert epochs == [3]
    assert torch.equal(sums, counts)


def table(recipe, folder, path=None):
    report = AdversarialReport(folder=str(folder))
    saves = Saves(folder, "batch", every_n_train_steps=8)
    fit(recipe, callbacks=[report, saves], ckpt_path=path)
    return report.table()


def test_ranks_count_together(ranks, tmp_path):
    double = {"precision": "64-true"}
    expected = table(RECIPE.but(trainer=double), tmp_path / "one")
    two = RECIPE.but(data={"batch_size": 8}, trainer={**double, "strategy": "ddp", "devices": 2})
    for found in ranks(table, two, tmp_path / "two"):
        assert found[0] == expected[0]
        assert torch.equal(found[1], expected[1])
    for found in ranks(table, two, tmp_path / "again", tmp_path / "two" / "batch-step=8.ckpt"):
        assert torch.equal(found[1], expected[1])
