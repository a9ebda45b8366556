"""The command line on two ranks, and in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_perturb.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def command(folder: str, *words: str) -> None:
    os.chdir(folder)
    main([*words, *QUIET])


def test_fit_and_predict_on_two_ranks(ranks, tmp_path):
    words = ["-c", str(CONFIGS / "quickstart.yaml"), *TWO, "--trainer.max_epochs=1"]
    ranks(command, str(tmp_path), "fit", *words)
    (path,) = tmp_path.rglob("last.ckpt")
    (suspects,) = tmp_path.rglob("suspects.csv")
    assert suspects.read_text().startswith("index,given_label")
    ranks(command, str(tmp_path), "predict", *words, f"--ckpt_path={path}")
    (table,) = tmp_path.rglob("predictions.csv")
    assert [int(line.split(",")[0]) for line in table.read_text().splitlines()[1:]] == list(range(449))


FRESH = """
import sys
import lightning_perturb
assert "lightning" not in sys.modules
import lightning_perturb.functional, lightning_perturb.bilevel
assert "lightning" not in sys.modules, "functional and bilevel serve projects without Lightning"
module = lightning_perturb.load(sys.argv[1])
print(type(module).__name__)
"""


def test_load_in_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["-c", str(CONFIGS / "data/digits.yaml"), "--trainer.accelerator=cpu", "--trainer.max_epochs=1", *QUIET]
    main(["fit", *words, "-c", str(CONFIGS / "methods/mixpert.yaml")])
    (path,) = tmp_path.rglob("*.ckpt")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    run = subprocess.run(
        [sys.executable, "-c", FRESH, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith("MixPert")


def test_a_network_that_does_not_know_num_classes(tmp_path, monkeypatch):
    import lightning_perturb

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "import torch\n\n\nclass Mine(torch.nn.Sequential):\n    def __init__(self, width: int = 8):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, 10))\n"
    )
    net = ["--model.init_args.net=my_nets.Mine", "--model.init_args.net.width=12"]
    words = ["--data=Digits", "--model=CrossEntropy", *net, "--trainer.accelerator=cpu", *QUIET]
    main(["fit", *words, "--trainer.max_epochs=1"])
    (path,) = tmp_path.rglob("*.ckpt")
    assert lightning_perturb.load(path).net[1].out_features == 12
    main(["fit", *words, "--trainer.max_epochs=2", f"--ckpt_path={path}"])
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2


def test_a_checkpoint_that_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cut.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match="cut off"):
        main(["fit", "-c", str(CONFIGS / "quickstart.yaml"), f"--ckpt_path={path}"])
    with pytest.raises(ValueError, match="cut off"):
        main(["test", "-c", str(CONFIGS / "quickstart.yaml"), "--ckpt_path", str(path)])
