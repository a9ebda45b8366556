import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from accuracy_grid import build, build_data, build_method, merge, read_grid, with_environment
from lightning.pytorch import Trainer

from lightning_perturb import methods
from lightning_perturb.core import PerturbationModule
from lightning_perturb.data import PerturbationDataModule

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GRIDS = sorted((BENCHMARKS / "grids").glob("*.yaml"))


# grids share most of their entries: one that was built need not be built again
BUILT = set()


def fresh(*specs):
    """Whether these specifications were not built before."""
    key = json.dumps(specs, sort_keys=True)
    known = key in BUILT
    BUILT.add(key)
    return not known


def test_there_are_grids():
    assert {"digits", "digits_select", "cifar10_pilot", *(f"tax_table{n}" for n in range(2, 11))} <= {
        path.stem for path in GRIDS
    }


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_entry_of_a_grid_can_be_built(path):
    # a small network is enough to see that a method takes its arguments
    small = {"class_path": "lightning_perturb.nets.MLP", "init_args": {"in_features": 1, "hidden": []}}
    for config in [run.config for run in read_grid(path).runs]:
        classes = config["num_classes"]
        if fresh(config["data"], config["seed"]):
            data = build_data(config)
            assert isinstance(data, PerturbationDataModule)
            assert data.seed == config["seed"]
        if fresh(config["net"], classes):
            with torch.device("meta"):
                net = build(merge(config["net"], {"init_args": {"num_classes": classes}}))
            assert any(len(weight) == classes for weight in net.parameters())
        if fresh(config["method"], classes):
            method = build_method({**config, "net": small})
            assert isinstance(method, PerturbationModule)
            method.configure_optimizers()
        if fresh(config["trainer"]):
            trainer = Trainer(**config["trainer"], accelerator="cpu", logger=False, enable_progress_bar=False)
            assert trainer.max_epochs > 0


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_readme_has_a_place_for_every_table(path):
    readme = (BENCHMARKS / "README.md").read_text()
    if "select" not in path.stem:
        assert f"<!-- begin: {path.stem} -->" in readme
        assert f"<!-- end: {path.stem} -->" in readme


def test_there_is_a_row_for_every_method():
    rows = yaml.safe_load((BENCHMARKS / "grids/parts/methods.yaml").read_text())["methods"]["rows"]
    assert {row["class_path"] for row in rows.values()} == {
        f"lightning_perturb.methods.{name}" for name in methods.__all__
    }


def test_the_papers_numbers_stand_beside_theirs():
    grid = read_grid(BENCHMARKS / "grids/tax_table9.yaml")
    assert grid.paper["MixPert", "pair 30 %"] == "76.41±0.18"
    assert grid.paper["CrossEntropy", "0 %"] == "81.53±0.09"
    for number in range(2, 11):
        grid = read_grid(BENCHMARKS / f"grids/tax_table{number}.yaml")
        assert all(re.fullmatch(r"\d\d\.\d\d±\d\.\d\d", value) for value in grid.paper.values())
        assert {column for _, column in grid.paper} == set(grid.columns)
        assert len(grid.paper) == len(grid.columns) * len({row for row, _ in grid.paper})


def test_tables_with_the_same_runs_share_them():
    keys = {
        number: {run.key for run in read_grid(BENCHMARKS / f"grids/tax_table{number}.yaml").runs}
        for number in (3, 4, 5, 7, 8, 9, 10)
    }
    assert keys[5] <= keys[3] | keys[4]
    assert keys[10] <= keys[7] | keys[8] | keys[9]


def test_a_network_comes_with_its_recipe():
    runs = read_grid(BENCHMARKS / "grids/tax_table10.yaml").runs
    wide = next(run.config for run in runs if run.column.startswith("WRN"))
    deep = next(run.config for run in runs if run.column.startswith("ResNet"))
    assert wide["trainer"]["max_epochs"] == 240
    assert deep["trainer"]["max_epochs"] == 300
    optimizer = wide["method"]["init_args"]["optimizer"]["init_args"]
    assert optimizer == {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "nesterov": True}
    assert "nesterov" not in deep["method"]["init_args"]["optimizer"]["init_args"]


def test_expansion(grid_file):
    grid = read_grid(grid_file)
    assert grid.columns == ["clean", "noisy"]
    assert grid.rows == ["CrossEntropy", "MixPert eta=1.0", "MixPert eta=2.0"]
    assert len(grid.runs) == 2 * 3 * 2
    assert len({run.key for run in grid.runs}) == len(grid.runs)
    assert [run.seed for run in grid.runs] == [0] * 6 + [1] * 6
    mixpert = {run.column: run.config["method"]["init_args"] for run in grid.runs if run.row == "MixPert eta=2.0"}
    assert mixpert["noisy"]["share"] == 0.4
    assert "share" not in mixpert["clean"]
    assert mixpert["clean"]["eta"] == 2.0


def test_names_are_no_part_of_a_run(grid_file):
    before = {run.key for run in read_grid(grid_file).runs}
    grid_file.write_text(grid_file.read_text().replace("noisy", "noisy labels").replace("title: Tiny", "title: Other"))
    assert {run.key for run in read_grid(grid_file).runs} == before
    grid_file.write_text(grid_file.read_text().replace("lr: 0.05", "lr: 0.06"))
    assert not {run.key for run in read_grid(grid_file).runs} & before


def test_includes(grid_file):
    over = grid_file.with_name("over.yaml")
    over.write_text(
        "include: tiny.yaml\nmethods: {rows: {MixPert: null}}\ndata: {columns: {clean: null}}\nseeds: [7]\n"
    )
    (run,) = read_grid(over).runs
    assert (run.row, run.column, run.seed) == ("CrossEntropy", "noisy", 7)


def test_only_keeps_the_rows_that_it_names(grid_file):
    over = grid_file.with_name("over.yaml")
    over.write_text("include: tiny.yaml\nmethods: {only: [CrossEntropy]}\n")
    assert read_grid(over).rows == ["CrossEntropy"]
    over.write_text("include: tiny.yaml\nmethods: {only: [Nobody]}\n")
    with pytest.raises(ValueError, match=r"methods\.only names 'Nobody'"):
        read_grid(over)


def test_another_class_takes_none_of_the_old_arguments():
    old = {"class_path": "a.A", "init_args": {"rate": 1, "x": 2}}
    assert merge(old, {"class_path": "b.B", "init_args": {"rate": 3}}) == {
        "class_path": "b.B",
        "init_args": {"rate": 3},
    }
    assert merge(old, {"init_args": {"rate": 3}})["init_args"] == {"rate": 3, "x": 2}
    assert old["init_args"]["rate"] == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test_every: 2", "test_evry: 2", "test_evry"),
        ("seeds: [0, 1]", "", "'seeds' is missing"),
        ("baseline: CrossEntropy", "baseline: CE", "'CE' is no row"),
        ("by_data: {noisy:", "by_data: {nosy:", "nosy"),
        ("title: Tiny", "paper: {source: x, rows: {CrossEntropy: 1.0}}", "has 1 numbers for 2 columns"),
    ],
)
def test_faults_of_a_grid_file_are_named(grid_file, old, new, message):
    grid_file.write_text(grid_file.read_text().replace(old, new).replace("CrossEntropy: 1.0", "CrossEntropy: '1.0'"))
    with pytest.raises(ValueError, match=message):
        read_grid(grid_file)


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.setenv("HERE_IT_IS", "/somewhere")
    assert with_environment({"a": ["${HERE_IT_IS}/x", 1]}) == {"a": ["/somewhere/x", 1]}
    with pytest.raises(ValueError, match="NOT_SET_ANYWHERE"):
        with_environment({"a": ["${NOT_SET_ANYWHERE}"]})
