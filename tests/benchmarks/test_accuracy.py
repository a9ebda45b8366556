import json
import statistics

import accuracy_pool
import accuracy_run
import pytest
from accuracy import main
from accuracy_figures import by_value, draw
from accuracy_grid import build_data, build_method, read_grid
from accuracy_pool import claimed, write_result
from accuracy_run import Curve
from accuracy_tables import Results, pending, read_results, select, table
from lightning.pytorch import Trainer, seed_everything
from readme import write_section

from lightning_perturb.attacks import PGD
from lightning_perturb.callbacks import AttackedEvaluation


def files(folder):
    return sorted(folder.glob("tiny/runs/*"))


def test_a_grid_runs_is_resumed_and_skips_what_is_done(grid_file, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    run = ["run", str(grid_file), "--results", str(results), "--only", "noisy / seed 0"]
    train, trained = accuracy_run.train, []

    def killed_in_the_second(one, *args):
        trained.append(one.row)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(one, *args)

    monkeypatch.setattr(accuracy_run, "train", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        main(run)
    assert len(files(results)) == 1
    assert main(run) == 0
    assert trained == ["CrossEntropy", "MixPert eta=1.0", "MixPert eta=1.0", "MixPert eta=2.0"]
    assert main(run) == 0
    assert len(trained) == 4
    assert len(files(results)) == 3

    result = json.loads(next(path for path in files(results) if "crossentropy" in path.name).read_text())
    curve = result["curve"]
    # tested every two epochs and after the last
    assert [value is None for value in curve["test/acc"]] == [True, False, False]
    for name in ("train/loss", "train/memorised", "val/acc"):
        assert len([value for value in curve[name] if value is not None]) == 3
    assert (result["train_samples"], result["val_samples"], result["test_samples"]) == (96, 32, 449)
    assert (result["epochs"], result["batch_size"], result["seed"], result["error"]) == (3, 64, 0, None)
    assert {"seconds", "commit", "device", "versions", "config", "noise_rate"} <= set(result)

    capsys.readouterr()
    assert main(["table", str(grid_file), "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert f"| CrossEntropy | – | {100 * curve['test/acc'][-1]:.1f} (1 of 2 seeds) |" in printed
    assert (results / "tiny" / "accuracy-noisy.png").stat().st_size > 1000


def test_the_curve_is_the_methods_own_evaluation(grid_file):
    config = read_grid(grid_file).runs[3].config
    seed_everything(0, verbose=False)
    data, method = build_data(config), build_method(config)
    data.setup("test")
    curve = Curve(3, lambda done: None)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[curve], **quiet)
    trainer.fit(method, datamodule=data)
    assert method.training
    (expected,) = trainer.test(method, datamodule=data, verbose=False)
    assert curve.rows[-1]["test/acc"] == pytest.approx(expected["test/acc"], abs=1e-6)
    assert curve.rows[-1]["test/loss"] == pytest.approx(expected["test/loss"], abs=1e-5)
    assert "test/acc" not in curve.rows[0]


def test_the_last_epoch_is_attacked(grid_file):
    config = read_grid(grid_file).runs[0].config
    seed_everything(0, verbose=False)
    data, method = build_data(config), build_method(config)
    data.setup("test")
    attack = PGD(0.2, steps=2)
    curve, quiet = Curve(1, lambda done: None, attack), accuracy_run._quiet(1)
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with quiet:
        trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[curve, AttackedEvaluation(attack)], **options)
        trainer.fit(method, datamodule=data)
        (expected,) = trainer.test(method, datamodule=data, verbose=False)
    assert [value is None for value in curve.columns["test/robust_acc"]] == [True, True, False]
    assert curve.rows[-1]["test/robust_acc"] == pytest.approx(expected["test/robust_acc"], abs=1e-6)
    assert curve.rows[-1]["test/robust_acc"] < curve.rows[-1]["test/acc"]


def test_a_source_is_read_once(grid_file):
    config = read_grid(grid_file).runs[0].config
    first, second = build_data(config), build_data({**config, "seed": 5})
    accuracy_run._READ.clear()
    accuracy_run._remember_reads(first, config["data"])
    accuracy_run._remember_reads(second, config["data"])
    assert first.read("train")[0] is second.read("train")[0]
    other = build_data(config)
    accuracy_run._remember_reads(other, {"class_path": "x.Y", "init_args": {"test_size": 0.5}})
    assert other.read("train")[0] is not first.read("train")[0]


def test_a_run_on_labels_that_nobody_knows(grid_file, tmp_path):
    text = grid_file.read_text().replace("train_size: 128", "labels_known: false, train_size: 128")
    grid_file.write_text(text.replace("max_epochs: 3", "max_epochs: 1"))
    arguments = [str(grid_file), "--results", str(tmp_path)]
    assert main(["run", *arguments, "--only", "CrossEntropy / noisy / seed 0"]) == 0
    (path,) = files(tmp_path)
    # NaN would be no JSON
    result = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert result["noise_rate"] is None
    assert "train/memorised" not in result["curve"]
    assert {"test/acc", "test/macro_precision"} <= set(result["curve"])


def test_a_run_that_breaks_off_is_a_result(grid_file, tmp_path, capsys):
    grid_file.write_text(grid_file.read_text().replace("lr: 0.05", "lr: 1.0e+30"))
    arguments = [str(grid_file), "--results", str(tmp_path)]
    assert main(["run", *arguments, "--only", "CrossEntropy / clean / seed 0"]) == 0
    (path,) = files(tmp_path)
    assert "CrossEntropy: the training loss is" in json.loads(path.read_text())["error"]
    assert main(["table", *arguments]) == 0
    assert "– (1 broke off)" in capsys.readouterr().out


def test_a_claimed_run_is_left_to_its_process(grid_file, tmp_path, monkeypatch):
    (run,) = [run for run in read_grid(grid_file).runs if run.name == "CrossEntropy / clean / seed 1"]
    folder = tmp_path / "tiny" / "runs"
    monkeypatch.setattr(accuracy_run, "train", lambda *args: pytest.fail("trained what another process holds"))
    with claimed(folder, run.key) as mine:
        assert mine
        with claimed(folder, run.key) as again:
            assert not again
        assert main(["run", str(grid_file), "--results", str(tmp_path), "--only", f"^{run.name}$"]) == 1
    assert files(tmp_path) == []


def test_faults_are_told(grid_file, tmp_path, capsys):
    arguments = ["--results", str(tmp_path)]
    assert main(["run", str(grid_file), *arguments, "--only", "nothing"]) == 2
    assert "'nothing' matches no run" in capsys.readouterr().err
    assert main(["run", str(grid_file), *arguments, "--jobs", "0"]) == 2
    assert main(["select", str(grid_file), *arguments, "--by", "test/acc"]) == 2
    assert "never chosen on the test set" in capsys.readouterr().err
    assert main(["select", str(grid_file), *arguments]) == 2
    assert "val_size" in capsys.readouterr().err
    grid_file.write_text(grid_file.read_text().replace("train_size: 128", "root: '${UNSET_FOLDER}'"))
    assert main(["run", str(grid_file), *arguments]) == 2
    assert "UNSET_FOLDER" in capsys.readouterr().err


# aggregation, on numbers made up here ---------------------------------------------------------------------------------


def made_up(run, test, val=0.5, memorised=None):
    curve = {"test/acc": test, "val/acc": [val] * len(test)}
    if memorised is not None:
        curve["train/memorised"] = [0.0] * (len(test) - 1) + [memorised]
    scale = {"train_samples": 96, "val_samples": 32, "test_samples": 449, "epochs": len(test), "batch_size": 64}
    facts = {"seconds": 1.0, "device": "x", "commit": "abc", "noise_rate": 0.4, "error": None}
    return {"row": run.row, "column": run.column, "seed": run.seed, "curve": curve, **scale, **facts}


def fill(grid_file, folder, numbers):
    for run in read_grid(grid_file).runs:
        if (run.row, run.column) in numbers:
            write_result(
                folder / "any" / "runs" / run.file_name, made_up(run, **numbers[run.row, run.column](run.seed))
            )
    return read_results(read_grid(grid_file), folder)


def test_last_best_and_mean_of_the_last_five(grid_file, tmp_path):
    curves = [[0.9, None, 0.1, 0.2, 0.3, 0.4, 0.5], [0.8, None, 0.2, 0.2, 0.2, 0.2, 0.7]]
    numbers = {("CrossEntropy", "noisy"): lambda seed: {"test": curves[seed], "memorised": 0.3 + 0.1 * seed}}
    text = table(fill(grid_file, tmp_path, numbers))
    last, best = [50.0, 70.0], [90.0, 80.0]
    five = [30.0, 100 * (0.2 + 0.2 + 0.2 + 0.2 + 0.7) / 5]
    for values in (last, best, five, [30.0, 40.0]):
        assert f"| CrossEntropy | – | {statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} |" in text
    assert "2 of 12 runs, 2 seeds" in text
    assert "noisy: CrossEntropy memorised only 35 %" in text
    assert "MixPert" not in text


def test_the_paper_stands_beside(grid_file, tmp_path):
    paper = "paper: {source: some Table, rows: {CrossEntropy: '90.10±0.20 70.00±1.00'}}\n"
    grid_file.write_text(grid_file.read_text() + paper)
    numbers = {("CrossEntropy", "clean"): lambda seed: {"test": [0.8], "memorised": 0.9}}
    text = table(fill(grid_file, tmp_path, numbers))
    assert "| CrossEntropy | 80.00 ± 0.00 [90.10 ± 0.20] | – [70.00 ± 1.00] |" in text
    assert "memorised only" not in text


def test_errors_among_five_and_an_unknown_share_of_wrong_labels(grid_file, tmp_path):
    text = grid_file.read_text().replace("title: Tiny", "metrics: [test/error, test/top5_error, test/macro_precision]")
    paper = "paper: {source: x, metrics: [test/error, test/top5_error], rows: {CrossEntropy: '20.5 6.1 - 7.2'}}\n"
    grid_file.write_text(text + paper)
    for run in read_grid(grid_file).runs:
        if (run.row, run.column) == ("CrossEntropy", "clean"):
            result = made_up(run, [0.5, 0.75])
            result["curve"] |= {"test/top5": [0.75, 0.9375], "test/macro_precision": [0.25, 0.5]}
            write_result(tmp_path / "any" / "runs" / run.file_name, {**result, "noise_rate": None})
    found = table(read_results(read_grid(grid_file), tmp_path))
    assert "Test top-5 error (%) after the last epoch, beside" in found
    assert "Test precision, mean over classes (%)" in found
    assert "| CrossEntropy | 25.00 ± 0.00 [20.5] | – |" in found
    assert "| CrossEntropy | 6.25 ± 0.00 [6.1] | – [7.2] |" in found
    assert "| CrossEntropy | 50.00 ± 0.00 | – |" in found
    assert "(an unknown share of wrong labels)" in found


def test_several_labels_are_told_by_mean_average_precision(grid_file, tmp_path, capsys):
    text = grid_file.read_text().replace(
        "title: Tiny", "metrics: [test/mAP, test/mAP_head, test/mAP_tail]\ntitle: Tiny"
    )
    text = text.replace("data.Digits, init_args: {train_size: 128, val_size: 32}", "data.MultiLabelDigits")
    text = text.replace("methods.CrossEntropy", "methods.BinaryCrossEntropy").replace(
        "in_features: 64", "in_features: 400"
    )
    text = text.replace("data.Symmetric", "data.MissingLabels")
    grid_file.write_text(text)
    arguments = [str(grid_file), "--results", str(tmp_path)]
    assert main(["run", *arguments, "--only", "CrossEntropy / noisy / seed 0"]) == 0
    (path,) = files(tmp_path)
    result = json.loads(path.read_text())
    assert {"test/mAP", "test/mAP_head", "test/mAP_tail", "test/loss", "val/mAP"} <= set(result["curve"])
    assert result["noise_rate"] > 0
    capsys.readouterr()
    assert main(["table", *arguments]) == 0
    printed = capsys.readouterr().out
    for title, name in (
        ("Test mAP (%)", "mAP"),
        ("Test mAP, head (%)", "mAP_head"),
        ("Test mAP, tail (%)", "mAP_tail"),
    ):
        part = printed.split(title)[1]
        assert f"{100 * result['curve'][f'test/{name}'][-1]:.1f} (1 of 2 seeds)" in part.split("Test mAP")[0]
    assert "noisy: test mAP by epoch" in printed
    assert "ccuracy" not in printed.replace("accuracy-noisy.png", "")


def test_groups_stand_beside_the_average(grid_file, tmp_path, capsys):
    metrics = "metrics: [test/train_weighted_acc, test/worst_group_acc]\nchosen_by: val/worst_group_acc\n"
    text = (
        grid_file.read_text()
        .replace("title: Tiny", f"{metrics}title: Tiny")
        .replace("num_classes: 10", "num_classes: 2")
    )
    text = text.replace("data.Digits, init_args: {train_size: 128, val_size: 32}", "data.ColoredDigits")
    text = text.replace("in_features: 64", "in_features: 192").replace("test_every: 2", "test_every: 1")
    grid_file.write_text(text)
    arguments = [str(grid_file), "--results", str(tmp_path)]
    assert main(["run", *arguments, "--only", "CrossEntropy / noisy / seed 0"]) == 0
    (path,) = files(tmp_path)
    curve = json.loads(path.read_text())["curve"]
    names = ("worst_group_acc", "mean_group_acc")
    assert {f"{stage}/{name}" for stage in ("val", "test") for name in names} | {"test/train_weighted_acc"} <= set(
        curve
    )
    assert all(
        worst <= mean for worst, mean in zip(curve["test/worst_group_acc"], curve["test/mean_group_acc"], strict=True)
    )
    # the same source is not read again, nor its domains
    assert main(["run", *arguments, "--only", "CrossEntropy / clean / seed 1"]) == 0
    capsys.readouterr()
    assert main(["table", *arguments]) == 0
    printed = capsys.readouterr().out
    for name in ("groups as in training", "worst group"):
        assert f"Test accuracy, {name} (%) in the epoch with the best val/worst_group_acc:" in printed
        assert f"Test accuracy, {name} (%) after the last epoch:" in printed


def test_an_epoch_that_validation_chooses(grid_file, tmp_path):
    paper = "paper: {source: x, rows: {CrossEntropy: '20.5 6.1'}}\n"
    grid_file.write_text(
        grid_file.read_text().replace("title: Tiny", "chosen_by: val/worst_group_acc\ntitle: Tiny") + paper
    )
    # the first of the two best epochs that were tested
    by, test = [0.9, 0.1, 0.4, 0.4, 0.2], [None, 0.9, 0.25, 0.8, 0.7]
    for run in read_grid(grid_file).runs:
        if (run.row, run.column) == ("CrossEntropy", "clean"):
            result = made_up(run, test)
            result["curve"]["val/worst_group_acc"] = by
            write_result(tmp_path / "any" / "runs" / run.file_name, result)
    text = table(read_results(read_grid(grid_file), tmp_path))
    chosen, last = text.split("after the last epoch:")
    assert "in the epoch with the best val/worst_group_acc, beside the paper's number" in chosen
    assert "| CrossEntropy | 25.00 ± 0.00 [20.5] | – [6.1] |" in chosen
    assert "| CrossEntropy | 70.00 ± 0.00 | – |" in last
    grid_file.write_text(grid_file.read_text().replace("val/worst", "test/worst"))
    with pytest.raises(ValueError, match="chosen_by='test/worst_group_acc' is no validation number"):
        read_grid(grid_file)


def test_a_hyperparameter_has_a_plot_where_it_is_searched_alone(grid_file, tmp_path):
    grid_file.write_text(grid_file.read_text().replace("[1.0, 2.0]", "[4.0, 1.0, 2.0]"))
    rows = {("MixPert eta=1.0", "noisy"): 0.3, ("MixPert eta=2.0", "noisy"): 0.5, ("CrossEntropy", "noisy"): 0.1}
    read = fill(grid_file, tmp_path, {row: lambda seed, at=at: {"test": [at + 0.1 * seed]} for row, at in rows.items()})
    (file,) = by_value(read, tmp_path).values()
    assert file.name == "accuracy-mixpert-by-eta.png"
    assert "MixPert: test accuracy by eta" in draw(read, tmp_path)
    # two values are no curve
    grid_file.write_text(grid_file.read_text().replace("[4.0, 1.0, 2.0]", "[1.0, 2.0]"))
    assert by_value(read_results(read_grid(grid_file), tmp_path), tmp_path) == {}


def test_settings_are_chosen_on_validation_alone(grid_file, tmp_path):
    numbers = {
        # the test would choose eta 1, and so would each first epoch
        ("MixPert eta=1.0", "clean"): lambda seed: {"test": [0.9], "val": 0.4},
        ("MixPert eta=2.0", "clean"): lambda seed: {"test": [0.1], "val": 0.5 + 0.1 * seed},
        ("MixPert eta=1.0", "noisy"): lambda seed: {"test": [0.9], "val": 0.6},
        ("MixPert eta=2.0", "noisy"): lambda seed: {"test": [0.9], "val": 0.2},
    }
    text = select(fill(grid_file, tmp_path, numbers))
    assert "| MixPert eta=2.0 | **0.5500** | 0.2000 | 0.3750 |" in text
    assert "- clean: MixPert {eta: 2.0}" in text
    assert "- noisy: MixPert {eta: 1.0}" in text
    assert "- over all columns: MixPert {eta: 1.0}" in text
    assert "CrossEntropy" not in text


def test_of_errors_the_best_is_the_smallest(grid_file, tmp_path):
    grid_file.write_text(grid_file.read_text().replace("title: Tiny", "metrics: [test/error]\ntitle: Tiny"))
    accuracy = [[0.9, None, 0.2, 0.3, 0.5], [0.8, None, 0.2, 0.2, 0.7]]
    read = fill(grid_file, tmp_path, {("CrossEntropy", "noisy"): lambda seed: {"test": accuracy[seed]}})
    text = table(read)
    last, best = text.split("Best epoch")
    assert "Test error (%) after the last epoch" in last
    assert f"| CrossEntropy | – | {40:.1f} ± {statistics.stdev([50.0, 30.0]):.1f} |" in last
    assert f"| CrossEntropy | – | {15:.1f} ± {statistics.stdev([10.0, 20.0]):.1f} |" in best.split("Mean of")[0]
    assert [value is None for value in read.curves("CrossEntropy", "noisy", "test/error")[0]] == [
        value is None for value in accuracy[0]
    ]


def test_settings_are_chosen_by_the_smallest_error(grid_file, tmp_path):
    numbers = {
        ("MixPert eta=1.0", "clean"): lambda seed: {"test": [0.1], "val": 0.6},
        ("MixPert eta=2.0", "clean"): lambda seed: {"test": [0.9], "val": 0.5},
    }
    text = select(fill(grid_file, tmp_path, numbers), "val/error")
    assert "| MixPert eta=1.0 | **0.4000** |" in text
    assert "- clean: MixPert {eta: 1.0}" in text


def test_groups_of_classes_have_tables_of_their_own(grid_file, tmp_path, capsys):
    text = grid_file.read_text().replace(
        "title: Tiny", "metrics: [test/error, test/acc_head, test/acc_tail]\ntitle: Tiny"
    )
    tail = "{train_size: 1000, imbalance: {class_path: lightning_perturb.data.Exponential, init_args: {ratio: 20.0}}}"
    text = text.replace("{train_size: 128, val_size: 32}", tail).replace(
        "    optimizer:", "    head_from: 50\n    optimizer:"
    )
    grid_file.write_text(text)
    arguments = [str(grid_file), "--results", str(tmp_path)]
    assert main(["run", *arguments, "--only", "CrossEntropy / noisy / seed 0"]) == 0
    curve = json.loads(files(tmp_path)[0].read_text())["curve"]
    assert set(curve) >= {"test/acc", "test/acc_head", "test/acc_medium", "test/acc_tail"}
    assert "test/error" not in curve
    capsys.readouterr()
    assert main(["table", *arguments]) == 0
    printed = capsys.readouterr().out
    for title, value in (
        ("Test error (%)", 1 - curve["test/acc"][-1]),
        ("Test accuracy, head (%)", curve["test/acc_head"][-1]),
        ("Test accuracy, tail (%)", curve["test/acc_tail"][-1]),
    ):
        assert f"{100 * value:.1f} (1 of 2 seeds)" in printed.split(title)[1].split("epoch")[1]
    assert "noisy: test error by epoch" in printed
    # what no run has gets no table
    grid_file.write_text(text.replace("test/acc_tail", "test/mAP_tail"))
    assert main(["table", *arguments]) == 0
    assert "tail" not in capsys.readouterr().out


def test_an_empty_grid_says_so(grid_file):
    grid = read_grid(grid_file)
    assert "None of 12 runs is done yet." in table(Results(grid))
    assert pending(grid) == "Tiny: none of 12 runs is done yet (`grids/tiny.yaml`).\n"


def test_results_are_written_whole_or_not(tmp_path, monkeypatch):
    path = tmp_path / "runs" / "a-b-s0-key.json"

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(accuracy_pool.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_result(path, {"a": 1})
    assert not path.exists()


def test_sections_of_the_readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- begin: a -->\nold\n<!-- end: a -->\nafter\n")
    write_section("a", "new\n", path)
    assert path.read_text() == "before\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\nafter\n"
    with pytest.raises(ValueError, match="begin: b"):
        write_section("b", "new", path)
