"""The configurations that users run are the ones that run here."""

from pathlib import Path

import pytest
import torch

from lightning_perturb import methods
from lightning_perturb.cli import build, main
from lightning_perturb.core.load import subclasses

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def files(folder: str) -> list[str]:
    return sorted(path.name for path in (CONFIGS / folder).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", files("methods"))
def test_every_method_file_trains(name):
    main(["fit", "-c", str(CONFIGS / "data/digits_sym40.yaml"), "-c", str(CONFIGS / "methods" / name), *QUICK])


def test_every_method_has_a_file():
    named = {
        (CONFIGS / "methods" / name).read_text().split("class_path: ", 1)[1].split()[0] for name in files("methods")
    }
    assert named == {cls.__name__ for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")}
    assert named == set(methods.__all__)


@pytest.mark.parametrize("name", [n for n in files("data") if n.startswith("digits")])
def test_every_digits_file_trains(name):
    main(["fit", "-c", str(CONFIGS / "data" / name), *QUICK])


@pytest.mark.parametrize("name", [n for n in files("data") if not n.startswith(("digits", "image_folder"))])
def test_every_other_data_file_builds_and_says_what_is_missing(name):
    cli = build(["-c", str(CONFIGS / "data" / name), "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert cli.model.num_classes == cli.datamodule.num_classes == (100 if "cifar100" in name else 10)
    assert cli.model.net(torch.zeros(2, 3, 32, 32)).shape == (2, cli.model.num_classes)
    with pytest.raises(FileNotFoundError, match=r"root='data'.*Unpack"):
        cli.datamodule.setup("fit")


def test_the_image_folder_file_says_what_is_missing():
    with pytest.raises((FileNotFoundError, SystemExit, ValueError), match="train/"):
        main(["fit", "-c", str(CONFIGS / "data/image_folder.yaml"), *QUICK])


@pytest.mark.parametrize("name", files("trainer"))
def test_every_trainer_file_composes(name):
    here = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.init_args.num_workers=0"]
    words = ["-c", str(CONFIGS / "data/digits.yaml"), "-c", str(CONFIGS / "methods/mixpert.yaml")]
    main(["fit", *words, "-c", str(CONFIGS / "trainer" / name), *QUICK, *here, "--data.init_args.pin_memory=false"])


def test_method_files_keep_network_and_optimizer_of_the_data_file():
    words = ["-c", str(CONFIGS / "data/digits.yaml"), "-c", str(CONFIGS / "methods/mixpert.yaml")]
    cli = build([*words, "--trainer.accelerator=cpu", "--model.init_args.eta=3", "--trainer.logger=false"])
    assert isinstance(cli.model, methods.MixPert)
    assert cli.model.eta == 3
    assert cli.model.optimizer(cli.model.parameters()).defaults["lr"] == 0.05
