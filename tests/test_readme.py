"""Everything in the README and in CONTRIBUTING runs."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from lightning_perturb import methods
from lightning_perturb.cli import main
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.zoo import zoo_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
QUICK = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", blocks(README, "python"), ids=range(len(blocks(README, "python"))))
def test_python_example(code):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_method_in_contributing_trains():
    (code,) = blocks(CONTRIBUTING, "python")
    assert len([line for line in code.split("class ", 1)[1].splitlines() if line.strip()]) <= 20
    scope = {"__name__": "contributing"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), scope)
    import lightning as L
    import torch

    from lightning_perturb.data import Digits
    from lightning_perturb.nets import MLP

    module = scope["ConfidencePenalty"](net=MLP(num_classes=10, in_features=64), num_classes=10, weight=0.2)
    trainer = L.Trainer(fast_dev_run=2, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(module, Digits())
    batch_loss = module.perturb_loss(torch.zeros(2), torch.zeros(2, 10), None)
    assert torch.allclose(batch_loss, torch.full((2,), -0.2 * torch.tensor(10.0).log()))


def test_the_bases_stand_to_each_other_as_drawn():
    tree, combined = blocks(CONTRIBUTING, "text")
    above, drawn = [], set()
    for line in tree.splitlines():
        prefix, name, file = re.match(r"([│├└─ ]*)(\w+)\s.*\score/(\w+)\.py$", line).groups()
        depth, base = len(prefix) // 4, getattr(import_module(f"lightning_perturb.core.{file}"), name)
        assert depth == 0 or above[depth - 1] in base.__bases__, line
        above[depth:] = [base]
        drawn.add(base)
    ours = [cls for cls in subclasses() if cls.__module__.startswith("lightning_perturb.core.")]
    assert drawn == {PerturbationModule, *ours}
    for name, bases in re.findall(r"class (\w+)\((.*?)\)", combined):
        assert [base.__name__ for base in getattr(methods, name).__bases__] == bases.split(", "), name


def commands() -> list[list[str]]:
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("lightning-perturb")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command(words):
    if "--model.help" in words or "--data.help" in words:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code in (0, None)
    elif words[0] in ("zoo", "figures"):
        main(words)
    else:
        main([*words, *QUICK])


def test_the_method_table_is_what_the_zoo_prints():
    table = README.split("<!-- begin: methods -->")[1].split("<!-- end: methods -->")[0].strip()
    assert table == zoo_markdown(), "write the output of `lightning-perturb zoo --markdown` between the markers"


def test_the_quickstart_reaches_what_the_readme_says(capsys):
    main(["fit", "-c", str(ROOT / "configs/quickstart.yaml"), "--trainer.enable_progress_bar=false"])
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"accuracy\D+([\d.]+)", printed)[1])
    assert accuracy > 0.9
    assert "suspects.csv" in printed
    assert "auroc" in printed.lower()


def test_nothing_in_the_texts_is_missing():
    for link in re.findall(r"\]\(([^)#]+)\)", README + CONTRIBUTING):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`(configs/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path
