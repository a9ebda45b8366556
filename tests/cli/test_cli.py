import csv
from pathlib import Path

import pytest
import torch

import lightning_perturb
from lightning_perturb.cli import main
from lightning_perturb.core.load import subclasses

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = ["-c", str(CONFIGS / "data/digits_sym40.yaml"), "--trainer.accelerator=cpu"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checkpoint(folder: str) -> str:
    (path,) = Path(folder).rglob("epoch*.ckpt")
    return str(path)


def test_fit_resume_test_validate_predict(tmp_path, capsys):
    words = [*DIGITS, *QUIET, "--trainer.default_root_dir=run"]
    main(["fit", *words, "--trainer.max_epochs=2"])
    printed = capsys.readouterr().out
    assert "Test set, clean labels" in printed
    assert "accuracy" in printed
    assert "config.yaml" in printed
    path = checkpoint("run")
    module = lightning_perturb.load(path)
    assert type(module).__name__ == "CrossEntropy"
    assert module.net(torch.zeros(1, 64)).shape == (1, 10)

    main(["fit", *words, "--trainer.max_epochs=3", "--trainer.default_root_dir=again", f"--ckpt_path={path}"])
    assert torch.load(checkpoint("again"), weights_only=True)["epoch"] == 2
    main(["validate", *words, f"--ckpt_path={path}"])
    main(["test", *words, f"--ckpt_path={path}"])
    main(["predict", *words, f"--ckpt_path={path}", "--trainer.default_root_dir=predicted"])
    (table,) = Path("predicted").rglob("predictions.csv")
    rows = list(csv.DictReader(table.open()))
    assert [int(row["sample"]) for row in rows] == list(range(len(rows)))
    first = rows[0]
    assert float(first["probability"]) == max(float(first[f"p_{c}"]) for c in range(10))


def test_resume_takes_a_typed_rate_and_keeps_the_saved_method_options():
    words = [*DIGITS, *QUIET, "-c", str(CONFIGS / "methods/mixpert.yaml")]
    main(["fit", *words, "--trainer.max_epochs=1", "--model.init_args.eta=3", "--trainer.default_root_dir=run"])
    module = lightning_perturb.load(checkpoint("run"))
    assert module.eta == 3
    saved = torch.load(checkpoint("run"), weights_only=True)["hyper_parameters"]
    assert "optimizer" not in saved
    assert saved["net"]["class_path"] == "lightning_perturb.nets.MLP"


def test_help_is_readable(capsys):
    for cls in subclasses():
        if not cls.__module__.startswith("lightning_perturb."):
            continue
        with pytest.raises(SystemExit) as stop:
            main(["fit", f"--model.help={cls.__name__}"])
        assert stop.value.code in (0, None)
        text = capsys.readouterr().out
        assert len(text.splitlines()) < 200
        assert "ResNet20" in text
        assert "known subclasses" not in text


def test_a_typo_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *DIGITS, "-c", str(CONFIGS / "methods/mixpert.yaml"), "--model.init_args.etta=1"])
    assert stop.value.code == 2
    assert "etta" in capsys.readouterr().err


def test_zoo_prints_every_method(capsys):
    main(["zoo"])
    text = capsys.readouterr().out
    for cls in subclasses():
        if cls.__module__.startswith("lightning_perturb.methods"):
            assert cls.__name__ in text
    assert "[tax 57" in text
    assert "Table 1 of the taxonomy" in text
    for wrong in (["--colour"], ["--table1", "--empty"], ["--markdown", "--markdown"]):
        with pytest.raises(SystemExit, match="--markdown"):
            main(["zoo", *wrong])


def test_shipped_configs_are_found_without_the_repository(monkeypatch, tmp_path):
    shipped = tmp_path / "package" / "_configs" / "methods"
    shipped.mkdir(parents=True)
    (shipped / "x.yaml").write_text("a: 1\n")
    monkeypatch.setattr("lightning_perturb.cli.files", lambda name: tmp_path / "package")
    from lightning_perturb.cli import _packaged

    assert _packaged(["fit", "-c", "configs/methods/x.yaml"])[2] == str(shipped / "x.yaml")
    assert _packaged(["fit", "--config", "methods/x.yaml"])[2] == str(shipped / "x.yaml")
    assert _packaged(["fit", "-c", "configs/methods/none.yaml"])[2] == "configs/methods/none.yaml"
