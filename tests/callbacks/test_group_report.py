"""The report of groups: its numbers are those that evaluation logs, over a resume too."""

import csv

import pytest
import torch
from testkit.training import Recipe, fit, tiny_data

from lightning_perturb.callbacks import GroupReport
from lightning_perturb.methods import CrossEntropy

DATA = {"domains": 3, "val_size": 30, "samples": 126}


def rows(folder):
    with open(folder / "group_accuracy.csv") as file:
        return list(csv.DictReader(file))


def test_it_writes_what_is_logged(tmp_path):
    trainer = fit(Recipe(CrossEntropy, data=DATA), callbacks=[report := GroupReport(str(tmp_path))])
    assert [path.name for path in report.paths] == ["group_accuracy.png"]
    last = [row for row in rows(tmp_path) if row["epoch"] == "2"]
    logged = trainer.callback_metrics
    assert {f"val/group_acc/{row['group']}" for row in last} == {n for n in logged if n.startswith("val/group_acc/")}
    for row in last:
        assert float(row["accuracy"]) == pytest.approx(float(logged[f"val/group_acc/{row['group']}"]), abs=1e-5)
    assert sum(int(row["samples"]) for row in last) == 30
    assert {row["epoch"] for row in rows(tmp_path)} == {"0", "1", "2"}


def test_a_resumed_run_goes_on(tmp_path):
    fit(Recipe(CrossEntropy, data=DATA), callbacks=[GroupReport(str(tmp_path / "whole"))])
    short = Recipe(CrossEntropy, data=DATA, trainer={"max_epochs": 2})
    fit(short, callbacks=[GroupReport(str(tmp_path / "short"))]).save_checkpoint(tmp_path / "run.ckpt")
    fit(
        Recipe(CrossEntropy, data=DATA),
        callbacks=[GroupReport(str(tmp_path / "rest"))],
        ckpt_path=tmp_path / "run.ckpt",
    )
    assert rows(tmp_path / "rest") == rows(tmp_path / "whole")


def test_nothing_without_domains(tmp_path):
    report = GroupReport(str(tmp_path / "none"))
    fit(Recipe(CrossEntropy, data={"val_size": 16}), callbacks=[report])
    assert report.paths == []
    assert not (tmp_path / "none").exists()


def two_ranks(folder):
    data = tiny_data(**DATA, eval_batch_size=4)
    recipe = Recipe(CrossEntropy, trainer={"devices": 2, "strategy": "ddp", "max_epochs": 1})
    trainer = fit(recipe, callbacks=[GroupReport(folder)], data=data)
    return {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/group_acc/")}


def test_two_ranks(ranks, tmp_path):
    logged, again = ranks(two_ranks, str(tmp_path))
    assert logged == again
    found = {f"val/group_acc/{row['group']}": float(row["accuracy"]) for row in rows(tmp_path)}
    assert found == pytest.approx(logged, abs=1e-5)
    assert torch.tensor([float(row["samples"]) for row in rows(tmp_path)]).sum() == 30
