import importlib.util
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


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A folder in the place of a network of the hub; None without the library."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    BertConfig(vocab_size=9, **sizes).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_entry_of_a_grid_can_be_built(path, tiny_bert):
    # a small network is enough to see that a method takes its arguments
    images = {"class_path": "lightning_perturb.nets.MLP", "init_args": {"in_features": 4, "hidden": []}}
    sizes = {"vocab_size": 3, "embedding_dim": 1, "hidden": 1}
    words = {"class_path": "lightning_perturb.nets.BiLSTMAttention", "init_args": sizes}
    for config in [run.config for run in read_grid(path).runs]:
        classes = config["num_classes"]
        if fresh(config["data"], config["seed"]):
            data = build_data(config)
            assert isinstance(data, PerturbationDataModule)
            assert data.seed == config["seed"]
        if fresh(config["net"], classes):
            # trained weights would be fetched
            arguments = {k: v for k, v in config["net"].get("init_args", {}).items() if k != "weights"}
            if config["net"]["class_path"].endswith("TransformersClassifier"):
                arguments = {"name": tiny_bert, "pretrained": False}
            if arguments.get("name", "") is not None:
                with torch.device("meta"):
                    net = build({**config["net"], "init_args": {**arguments, "num_classes": classes}})
                assert any(len(weight) == classes for weight in net.parameters())
        if fresh(config["method"], classes):
            small = words if "perturb_at" in config["method"].get("init_args", {}) else images
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
    for file, several in (("methods", False), ("multi_label_methods", True)):
        rows = yaml.safe_load((BENCHMARKS / f"grids/parts/{file}.yaml").read_text())["methods"]["rows"]
        # a teacher or an adjuster must have been trained before; several tasks are several data sets
        names = {name for name in methods.__all__ if getattr(methods, name).multi_label == several}
        names -= {"KnowledgeDistillation", "BalancedKnowledgeDistillation", "TransferredRobustLoss", "NARLMultiTask"}
        assert {row["class_path"] for row in rows.values()} == {f"lightning_perturb.methods.{name}" for name in names}


def test_the_papers_numbers_stand_beside_theirs():
    grid = read_grid(BENCHMARKS / "grids/tax_table9.yaml")
    assert grid.paper["MixPert", "pair 30 %"] == "76.41±0.18"
    assert grid.paper["CrossEntropy", "0 %"] == "81.53±0.09"
    for number in range(2, 11):
        grid = read_grid(BENCHMARKS / f"grids/tax_table{number}.yaml")
        assert all(re.fullmatch(r"\d\d\.\d\d±\d\.\d\d", value) for value in grid.paper.values())
        assert {column for _, column in grid.paper} == set(grid.columns)
        assert len(grid.paper) == len(grid.columns) * len({row for row, _ in grid.paper})


def test_the_numbers_on_texts_stand_beside_theirs():
    grids = {number: read_grid(BENCHMARKS / f"grids/tax_table{number}.yaml") for number in (16, 17, 20)}
    for number, grid in grids.items():
        assert all(re.fullmatch(r"\d\d\.\d\d±\d\.\d\d", value) for value in grid.paper.values())
        assert {row for row, _ in grid.paper} == set(grid.rows) - {"LogPert exact"}
        assert len(grid.paper) == len(grid.columns) * (4 if number == 20 else 11)
    assert grids[16].paper["ProSelfLC", "asymmetric 20 %"] == "74.96±3.01"
    assert grids[17].paper["PGDTraining", "symmetric 10 %"] == "89.34±0.15"
    assert grids[20].paper["only negative", "0 %"] == "85.84±0.36"
    shared = {run.key for run in grids[16].runs} & {run.key for run in grids[20].runs}
    assert len(shared) == 2 * 4 * 3
    rates = {
        number: {r.config["method"]["init_args"]["optimizer"]["init_args"]["lr"] for r in grids[number].runs}
        for number in grids
    }
    assert rates == {16: {0.001}, 17: {0.00002}, 20: {0.001}}
    options = {run.row: run.config["method"]["init_args"] for run in grids[20].runs if run.column == "symmetric 20 %"}
    assert [options[row]["eta"] * options[row]["eps2"] > 0 for row in grids[20].rows[1:]] == [False, False, True]
    assert {options[row]["share"] for row in grids[20].rows[1:]} == {0.15}


def test_the_numbers_on_imagenet_and_clothing1m_stand_beside_theirs():
    tables = {n: read_grid(BENCHMARKS / f"grids/tax_table{n}.yaml") for n in ("11", "12", "13", "13_meta", "14", "15")}
    for number, grid in tables.items():
        metrics = ["test/acc"] if number in ("14", "15") else ["test/error", "test/top5_error"]
        assert list(grid.metrics) == list(grid.papers) == metrics
        for numbers in grid.papers.values():
            assert all(re.fullmatch(r"\d{1,2}\.\d\d", value) for value in numbers.values())
            # LogPert in closed form is a row of ours
            assert {row for row, _ in numbers} == set(grid.rows) - {"LogPert exact"}
            assert len(numbers) == len(grid.columns) * len({row for row, _ in numbers})
    assert tables["11"].papers["test/top5_error"]["PGDTraining", "ImageNet"] == "7.33"
    assert tables["13_meta"].papers["test/top5_error"]["MetaMixPert", "ResNet-101"] == "5.14"
    assert tables["15"].paper["MetaMixPert", "Clothing1M"] == "75.41"
    keys = {number: {run.key for run in grid.runs} for number, grid in tables.items()}
    assert keys["13"] < keys["11"] | keys["12"]
    for run in (*tables["11"].runs, *tables["12"].runs, *tables["13_meta"].runs):
        schedule = run.config["method"]["init_args"]["lr_scheduler"]["init_args"]
        assert (schedule, run.config["trainer"]) == ({"milestones": [75, 150, 225], "gamma": 0.1}, {"max_epochs": 250})
        assert run.config["data"]["init_args"]["batch_size"] == 256
    for run in (*tables["14"].runs, *tables["15"].runs):
        optimizer = run.config["method"]["init_args"]["optimizer"]["init_args"]
        assert optimizer == {"lr": 0.0008, "momentum": 0.9, "weight_decay": 0.001}


def test_the_numbers_on_the_generalised_long_tail_stand_beside_theirs():
    grid = read_grid(BENCHMARKS / "grids/iada_table4.yaml")
    assert grid.columns == ["CLT", "GLT", "ALT"]
    accuracy, precision = (grid.papers[name] for name in ("test/acc", "test/macro_precision"))
    assert {row for row, _ in accuracy} == set(grid.rows)
    # the paper has no numbers of logit adjustment where classes are balanced
    assert len(accuracy) == len(precision) == 3 * len(grid.rows) - 1
    assert all(re.fullmatch(r"\d\d\.\d\d", value) for value in (*accuracy.values(), *precision.values()))
    assert accuracy["MetaIADA", "GLT"] == "44.36"
    assert precision["cRT", "CLT"] == "45.34"
    assert precision["RISDA", "ALT"] == "43.23"
    assert accuracy["DeconfoundTDE", "ALT"] == "41.40"
    assert precision["RandAugment", "CLT"] == "52.13"
    for run in grid.runs:
        longer = run.row in ("cRT", "LWS")
        assert run.config["trainer"]["max_epochs"] == (110 if longer else 100)
        assert run.config["data"]["init_args"]["protocol"] == run.column
        assert ("augment" in run.config["data"]["init_args"]) == (run.row == "RandAugment")


def test_the_numbers_of_multi_label_lpl_stand_beside_theirs():
    voc, coco = (read_grid(BENCHMARKS / f"grids/lpl_table5_{name}.yaml") for name in ("voc", "coco"))
    for grid, column, classes in ((voc, "VOC-MLT", 20), (coco, "COCO-MLT", 80)):
        assert {run.config["num_classes"] for run in grid.runs} == {classes}
        assert {row for row, _ in grid.paper} == set(grid.rows)
        for metric in grid.metrics:
            assert all(re.fullmatch(r"\d\d\.\d\d", value) for value in grid.papers[metric].values())
        assert grid.papers["test/mAP_tail"]["RBCEFocalLPL", column] == {20: "80.87", 80: "53.81"}[classes]
    assert voc.paper["RBCEFocalLPL", "VOC-MLT"] == "79.57"
    settings = {r.row: r.config["method"]["init_args"] for r in coco.runs}
    assert settings["RBCELPL fixed"]["weight_centre"] == 0.2
    assert settings["RBCELPL fixed"]["delta_eps"] == 0.0
    assert read_grid(BENCHMARKS / "grids/lpl_table10.yaml").paper["RBCELPL", "MS-COCO"] == "85.4"


def test_the_numbers_of_lpl_stand_beside_theirs():
    balanced = {name: read_grid(BENCHMARKS / f"grids/lpl_{name}.yaml") for name in ("table1", "table2")}
    balanced |= {f"table8_{d}": read_grid(BENCHMARKS / f"grids/lpl_table8_{d}.yaml") for d in ("cifar10", "cifar100")}
    tails = {name: read_grid(BENCHMARKS / f"grids/lpl_{name}.yaml") for name in ("table3", "table4")}
    tails |= {f"table9_{d}": read_grid(BENCHMARKS / f"grids/lpl_table9_{d}.yaml") for d in ("cifar10", "cifar100")}
    wild = {f"table6_{d}": read_grid(BENCHMARKS / f"grids/lpl_table6_{d}.yaml") for d in ("inat2017", "inat2018")}
    for grid in (balanced | tails | wild).values():
        # errors: a row with less of them than another is better
        assert grid.metrics[0] == "test/error"
        assert set(grid.papers) == {"test/error"}
        assert {row for row, _ in grid.paper} == set(grid.rows)
        assert len(grid.paper) == len(grid.rows) * len(grid.columns)
        spread = r"±\d\.\d\d" if grid in balanced.values() else ""
        assert all(re.fullmatch(r"\d{1,2}\.\d\d" + spread, value) for value in grid.paper.values())
    assert balanced["table1"].paper["LPL varied", "ResNet-110"] == "5.72±0.05"
    assert balanced["table2"].paper["ISDA, dropout", "WRN-28-10"] == "17.98±0.15"
    assert balanced["table8_cifar10"].paper["LPL fixed", "SE-ResNet-110"] == "5.87±0.17"
    assert balanced["table8_cifar100"].columns == ["ResNet-32", "SE-ResNet-110", "WRN-16-8"]
    assert tails["table3"].paper["LPL varied", "10:1"] == "39.03"
    assert tails["table4"].paper["MetaWeightNet", "100:1"] == "26.43"
    assert tails["table9_cifar10"].paper["LogitAdjustedLPL", "100:1"] == "21.46"
    assert tails["table9_cifar100"].paper["LogitAdjustment", "100:1"] == "56.11"
    assert wild["table6_inat2018"].paper["LPL varied", "iNat2018"] == "30.59"
    # two rows of Table IX stand in Tables III and IV too
    for whole, part in (("table4", "table9_cifar10"), ("table3", "table9_cifar100")):
        shared = {run.key for run in tails[whole].runs} & {run.key for run in tails[part].runs}
        assert len(shared) == 2 * 5


def test_the_recipes_of_lpl_are_those_of_its_networks():
    found = {}
    for name in ("table1", "table8_cifar10"):
        for run in read_grid(BENCHMARKS / f"grids/lpl_{name}.yaml").runs:
            method = run.config["method"]["init_args"]
            optimizer, scheduler = (method[part]["init_args"] for part in ("optimizer", "lr_scheduler"))
            assert optimizer["nesterov"]
            assert run.config["data"]["init_args"]["augment"]["init_args"] == {"mode": "reflect"}
            dropout = run.config["net"].get("init_args", {}).get("dropout", 0.0)
            assert (dropout == 0.3) == (run.method in ("ISDA, dropout", "LPL fixed", "LPL varied"))
            found[run.column] = (
                run.config["trainer"]["max_epochs"],
                scheduler["milestones"],
                scheduler["gamma"],
                optimizer["weight_decay"],
            )
    wide = (240, [60, 120, 160, 200], 0.2, 0.0005)
    plain = (160, [80, 120], 0.1, 0.0001)
    assert found == {
        "WRN-28-10": wide,
        "ResNet-110": plain,
        "ResNet-32": plain,
        "SE-ResNet-110": (200, [80, 120, 160], 0.1, 0.0001),
        "WRN-16-8": wide,
    }
    for name, epochs, meta in (("table4", 1241, 100), ("table3", 1419, 1000)):
        for run in read_grid(BENCHMARKS / f"grids/lpl_{name}.yaml").runs:
            short = run.method not in ("ISDA, dropout", "LogitAdjustment", "LPL fixed", "LPL varied")
            assert run.config["trainer"]["max_epochs"] == (200 if short else epochs)
            assert run.config["data"]["init_args"]["meta_size"] == meta


def test_a_paper_with_several_metrics(grid_file):
    text = grid_file.read_text().replace("title: Tiny", "metrics: [test/mAP, test/mAP_head]")
    grid_file.write_text(text + "paper: {source: x, rows: {CrossEntropy: '1.0 2.0 3.0 4.0'}}\n")
    grid = read_grid(grid_file)
    assert grid.metrics == ("test/mAP", "test/mAP_head")
    assert grid.paper == {("CrossEntropy", "clean"): "1.0", ("CrossEntropy", "noisy"): "3.0"}
    assert grid.papers["test/mAP_head"]["CrossEntropy", "noisy"] == "4.0"
    grid_file.write_text(grid_file.read_text().replace("3.0 4.0", "3.0"))
    with pytest.raises(ValueError, match="has 3 numbers for 2 columns with 2 metrics each"):
        read_grid(grid_file)


def test_a_paper_that_prints_one_of_several_metrics(grid_file):
    text = grid_file.read_text().replace("title: Tiny", "metrics: [test/error, test/acc_tail]")
    paper = "paper: {source: x, metrics: [test/error], rows: {CrossEntropy: '1.0 2.0'}}\n"
    grid_file.write_text(text + paper)
    grid = read_grid(grid_file)
    assert grid.metrics == ("test/error", "test/acc_tail")
    assert grid.papers == {"test/error": {("CrossEntropy", "clean"): "1.0", ("CrossEntropy", "noisy"): "2.0"}}
    grid_file.write_text(text + paper.replace("[test/error]", "[test/mAP]"))
    with pytest.raises(ValueError, match=r"paper\.metrics names 'test/mAP'"):
        read_grid(grid_file)


def test_a_row_with_an_option_of_the_network_and_of_the_data(grid_file):
    before = {run.key for run in read_grid(grid_file).runs}
    grid_file.write_text(
        grid_file.read_text().replace(
            "    CrossEntropy: {class_path: lightning_perturb.methods.CrossEntropy}\n",
            "    CrossEntropy: {class_path: lightning_perturb.methods.CrossEntropy}\n"
            "    CrossEntropy, dropout:\n"
            "      class_path: lightning_perturb.methods.CrossEntropy\n"
            "      net: {init_args: {dropout: 0.5}}\n"
            "      data: {init_args: {val_size: 7, balanced_from: 0}}\n",
        )
    )
    runs = read_grid(grid_file).runs
    assert before < {run.key for run in runs}
    for run in runs:
        dropped = run.row == "CrossEntropy, dropout"
        assert run.config["net"]["init_args"].get("dropout") == (0.5 if dropped else None)
        assert run.config["net"]["init_args"]["hidden"] == [8]
        assert run.config["data"]["init_args"]["val_size"] == (7 if dropped else 32)
        assert run.config["data"]["init_args"].get("balanced_from") == (0 if dropped else None)
        assert not {"net", "data"} & set(run.config["method"])


def test_the_numbers_of_meta_iada_stand_beside_theirs():
    for name in ("table2", "table5", "table7"):
        for data in ("cifar10", "cifar100"):
            grid = read_grid(BENCHMARKS / f"grids/iada_{name}_{data}.yaml")
            assert all(re.fullmatch(r"\d\d\.\d\d", value) for value in grid.paper.values())
    assert grid.paper["MetaIADA without R", "100:1"] == "47.53"
    noisy = {data: read_grid(BENCHMARKS / f"grids/iada_table5_{data}.yaml") for data in ("cifar10", "cifar100")}
    for found in noisy.values():
        assert len(found.paper) == len(found.rows) * len(found.columns)
    assert noisy["cifar10"].paper["GLC", "flip 40 %"] == "88.93"
    assert noisy["cifar100"].paper["JoCoR", "flip 40 %"] == "46.44"
    rates = {(r.row, r.column): r.config["method"]["init_args"].get("forget_rate") for r in noisy["cifar10"].runs}
    assert (rates["CoTeaching", "flip 20 %"], rates["JoCoR", "flip 40 %"]) == (0.2, 0.4)
    assert read_grid(BENCHMARKS / "grids/iada_table3.yaml").paper["MetaIADA", "iNaturalist 2018"] == "72.55"
    two, seven = (read_grid(BENCHMARKS / f"grids/iada_table{n}_cifar100.yaml").runs for n in (2, 7))
    assert {r.key for r in two if r.row == "MetaIADA"} == {r.key for r in seven if r.row == "MetaIADA"}


@pytest.mark.parametrize(
    ("table", "row", "value"),
    [("4", "T-GCE", "70.08"), ("5_animal10n", "T-PolySoft", "82.90±0.21"), ("5_food101n", "T-SL", "85.90±0.01")],
)
def test_the_numbers_of_transferred_adjusters_stand_beside_theirs(table, row, value):
    grid = read_grid(BENCHMARKS / f"grids/narl_table{table}.yaml")
    assert {name for name, _ in grid.paper} == set(grid.rows)
    assert len(grid.rows) == 10
    (column,) = grid.columns
    assert grid.paper[row, column] == value


def test_the_numbers_of_narl_adjuster_stand_beside_theirs():
    for table, columns in ((1, 6), (2, 4)):
        for data in ("cifar10", "cifar100"):
            grid = read_grid(BENCHMARKS / f"grids/narl_table{table}_{data}.yaml")
            assert all(re.fullmatch(r"\d\d\.\d\d±\d\.\d\d", value) for value in grid.paper.values())
            assert len(grid.columns) == columns
            assert len(grid.paper) == 11 * columns
            assert {row for row, _ in grid.paper} == set(grid.rows)
            # Forward trains twice
            epochs = {run.row: run.config["trainer"]["max_epochs"] for run in grid.runs}
            assert epochs.pop("Forward") == 2 * epochs["GCE"]
            assert len(set(epochs.values())) == 1
            options = [run.config["data"]["init_args"] for run in grid.runs]
            assert {(o["meta_size"], o["meta_labels"]) for o in options} == {(1000, "drop")}
    assert grid.paper["A-PolySoft", "instance 40 %"] == "46.57±0.12"
    three = read_grid(BENCHMARKS / "grids/narl_table3.yaml")
    assert len(three.paper) == 66 == len(three.rows) * len(three.columns)
    assert three.paper["T-GCE", "asymmetric 40 %"] == "36.07±0.26"
    assert {run.config["trainer"]["max_epochs"] for run in three.runs if run.row != "Forward"} == {90}
    one = read_grid(BENCHMARKS / "grids/narl_table1_cifar10.yaml")
    assert one.paper["A-GCE", "asymmetric 40 %"] == "88.08±0.28"
    optimizers = [[run.config["method"]["init_args"]["optimizer"]["init_args"] for run in g.runs] for g in (one, grid)]
    assert all(o == {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005} for o in optimizers[0])
    assert all(o == {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0001} for o in optimizers[1])
    asymmetric = [run.config["data"]["init_args"]["label_noise"] for run in one.runs if run.column == "asymmetric 40 %"]
    assert {noise["class_path"].rpartition(".")[2] for noise in asymmetric} == {"CIFAR10AsymmetricOneWay"}
    assert {noise["init_args"]["rate"] for noise in asymmetric} == {0.4}


def test_the_accuracies_under_attack_stand_beside_theirs():
    grid = read_grid(BENCHMARKS / "grids/tax_table19.yaml")
    assert grid.columns == ["random 10 %"]
    assert grid.papers["test/acc"]["MixPert, ε2 = 6/255", "random 10 %"] == "88.67±0.15"
    assert grid.papers["test/robust_acc"]["MixPert, ε2 = 8/255", "random 10 %"] == "70.25±0.14"
    trainings = {run.row: {**run.config, "attack": None} for run in grid.runs}
    for table, row, here in ((2, "MixPert", "MixPert, ε2 = 0"), (18, "both directions", "MixPert, ε2 = 2/255")):
        runs = read_grid(BENCHMARKS / f"grids/tax_table{table}.yaml").runs
        same = [run for run in runs if run.row == row and run.column == "random 10 %" and run.seed == 2]
        (found,) = [run for run in same if run.config["net"]["class_path"].endswith("ResNet20")] or same
        assert {**found.config, "attack": None} == trainings[here], (table, row)
    for name in ("tax_table19", "digits_attacked"):
        for run in read_grid(BENCHMARKS / f"grids/{name}.yaml").runs:
            attack, method = build(run.config["attack"]), run.config["method"]["init_args"]
            assert attack.steps == 20
            assert method.get("eps2", method.get("eps", 0)) <= attack.eps + 1e-7
            assert method.get("clip", True) == attack.space.clip or not method.get("eps2")


def test_an_attack_names_other_runs(grid_file):
    before = {run.key for run in read_grid(grid_file).runs}
    attack = "attack: {class_path: lightning_perturb.attacks.FGSM, init_args: {eps: 0.1}}\n"
    grid_file.write_text(grid_file.read_text() + attack)
    assert not before & {run.key for run in read_grid(grid_file).runs}
    grid_file.write_text(grid_file.read_text().replace(attack, "attack: null\n"))
    assert before == {run.key for run in read_grid(grid_file).runs}


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


def test_a_row_may_train_on_other_batches(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "num_classes: 2\n"
        "data: {base: {class_path: a.Data, init_args: {batch_size: 8}}, columns: {one: {}, two: {init_args: {x: 1}}}}\n"
        "nets: {N: {class_path: a.Net}}\n"
        "methods:\n"
        "  rows:\n"
        "    plain: {class_path: a.M}\n"
        "    balanced: {class_path: a.M, data: {init_args: {balanced_from: 0, balanced_by: group}}}\n"
        "trainer: {max_epochs: 1}\n"
        "seeds: [0]\n"
    )
    found = {(run.row, run.column): run.config["data"]["init_args"] for run in read_grid(tmp_path / "grid.yaml").runs}
    assert found["plain", "two"] == {"batch_size": 8, "x": 1}
    assert found["balanced", "two"] == {"batch_size": 8, "x": 1, "balanced_from": 0, "balanced_by": "group"}


def test_the_numbers_of_subpopulation_shift_stand_beside_theirs():
    grids = {
        name: read_grid(BENCHMARKS / f"grids/iada_table6_{name}.yaml")
        for name in ("cmnist", "waterbirds", "celeba", "civil_comments")
    }
    for grid in grids.values():
        assert grid.chosen_by == "val/worst_group_acc"
        assert {row for row, _ in grid.paper} == set(grid.rows) - {"CrossEntropy", "CrossEntropy, balanced groups"}
        for metric in grid.metrics:
            assert all(re.fullmatch(r"\d\d\.\d", value) for value in grid.papers[metric].values())
        init = grid.runs[0].config["data"]["init_args"]
        assert (init["meta_by"], init["meta_size"]) == ("group", 40)
    assert grids["waterbirds"].papers["test/train_weighted_acc"]["UW", "Waterbirds"] == "95.1"
    assert grids["cmnist"].papers["test/acc"]["MetaIADA", "CMNIST"] == "78.0"
    assert grids["celeba"].paper["MetaIADA", "CelebA"] == "91.2"
    assert grids["civil_comments"].paper["VREx", "CivilComments"] == "64.9"
    rates = {
        name: grid.runs[0].config["method"]["init_args"]["optimizer"]["init_args"]["lr"] for name, grid in grids.items()
    }
    assert rates == {"cmnist": 0.001, "waterbirds": 0.001, "celeba": 0.0001, "civil_comments": 0.00001}
