"""Subpopulation shift from the command line, as a user runs it."""

import csv
from pathlib import Path

import torch

from lightning_perturb.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def test_colored_digits_by_the_worst_group(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worst.yaml").write_text(
        "trainer:\n"
        "  callbacks:\n"
        "    - class_path: ModelCheckpoint\n"
        "      init_args: {monitor: val/worst_group_acc, mode: max, filename: best, save_last: true}\n"
        "  logger: {class_path: CSVLogger, init_args: {save_dir: logs}}\n"
    )
    words = ["-c", str(CONFIGS / "data/colored_digits.yaml"), "-c", "worst.yaml"]
    quick = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    balanced = ["--data.init_args.balanced_from=0", "--data.init_args.balanced_by=group"]
    main(["fit", *words, *quick, *balanced, "--trainer.max_epochs=3"])
    printed = capsys.readouterr().out
    for name in ("accuracy, worst group", "accuracy, groups as in training", "accuracy, 5-9 / green"):
        assert name in printed
    with open(next(Path("logs").rglob("metrics.csv"))) as file:
        rows = list(csv.DictReader(file))
    worst = [float(row["val/worst_group_acc"]) for row in rows if row["val/worst_group_acc"]]
    for row in rows:
        groups = [float(v) for name, v in row.items() if name.startswith("val/group_acc/") and v]
        if groups:
            assert len(groups) == 4
            assert float(row["val/worst_group_acc"]) == min(groups)
    (best,) = Path("logs").rglob("best.ckpt")
    state = torch.load(best, weights_only=True)["callbacks"]
    assert max(worst) == float(next(v["best_model_score"] for v in state.values() if "best_model_score" in v))

    # from the checkpoint alone the test knows how frequent groups were in training
    main(["test", *words, *quick, "--ckpt_path", str(best)])
    assert "test/train_weighted_acc" in capsys.readouterr().out
    # and training goes on where it stopped
    (last,) = Path("logs").rglob("last.ckpt")
    main(["fit", *words, *quick, *balanced, "--trainer.max_epochs=4", "--ckpt_path", str(last)])
