"""Cells from YAML: reloading, and what names that are wrong are told."""

from pathlib import Path

import pytest
import torch

import lightning_perturb
from lightning_perturb.cli import build, main
from lightning_perturb.lattice import HardestSamples, Partner
from lightning_perturb.methods import MetaPerturb, Perturb

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu"]
QUICK += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

CELLS = """
model:
  class_path: {method}
  init_args:
    perturbations:
      - {{class_path: Adversarial, init_args: {{target: feature, granularity: corpus, eps: 0.02, steps: 1}}}}
      - class_path: Prior
        init_args: {{target: feature, direction: mixed, pattern: {{class_path: Partner, init_args: {{alpha: 0.4}}}}}}
      - {{class_path: Adversarial, init_args: {{target: feature, at: deep, split: HardestSamples}}}}
      - {{class_path: {cell}, init_args: {{target: loss, granularity: category, direction: positive}}}}
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def words(text: str, data: str = "digits_sym40") -> list[str]:
    Path("cells.yaml").write_text(text)
    return ["-c", str(CONFIGS / f"data/{data}.yaml"), "-c", "cells.yaml", *QUICK]


@pytest.mark.parametrize(("method", "cell"), [("Perturb", "Hyperparameter"), ("MetaPerturb", "Meta")])
def test_a_run_from_yaml_opens_without_arguments(method, cell):
    meta = ["--data.init_args.meta_size=50"] if method == "MetaPerturb" else []
    main(["fit", *words(CELLS.format(method=method, cell=cell)), *meta])
    path = next(Path().rglob("*.ckpt"))
    module = lightning_perturb.load(path)
    assert type(module) is {"Perturb": Perturb, "MetaPerturb": MetaPerturb}[method]
    _, partner, deep, _ = module.perturbations
    assert isinstance(partner.pattern, Partner)
    assert partner.pattern.alpha == 0.4
    assert isinstance(deep.split, HardestSamples)
    assert (deep.at, deep.place) == ("deep", "deep")
    assert float(module.cell_0_shared.abs().max()) == pytest.approx(0.02 / 4 * 2 / 0.3, rel=0.5)
    # by Lightning's own way, too
    again = type(module).load_from_checkpoint(path, weights_only=True)
    assert torch.equal(again.cell_0_shared, module.cell_0_shared)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("{class_path: Adversarail, init_args: {target: logit}}", "Adversarail"),
        ("{class_path: Prior, init_args: {target: feeture}}", "feeture"),
        ("{class_path: Prior, init_args: {target: logit, granularity: group}}", "group"),
        ("{class_path: Prior, init_args: {target: logit, strenght: 2}}", "strenght"),
        ("{class_path: Prior, init_args: {target: label, pattern: {class_path: Unifrom}}}", "Unifrom"),
        ("{class_path: Prior, init_args: {target: label, pattern: {class_path: Uniform, init_args: {a: 1}}}}", "'a'"),
        ("{class_path: Uniform}", "Uniform"),
        ("{class_path: Prior, init_args: {granularity: corpus}}", "target"),
        ("{class_path: Regularization, init_args: {target: label, granularity: corpus}}", "has no meaning"),
    ],
)
def test_a_wrong_name_is_told(cell, told, capsys):
    text = f"model: {{class_path: Perturb, init_args: {{perturbations: [{cell}]}}}}"
    with pytest.raises((SystemExit, ValueError)) as error:
        build(words(text))
    assert told in capsys.readouterr().err + str(error.value)
