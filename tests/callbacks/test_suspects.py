import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import CLASSES, Recipe, digits, fit, module_of, tiny_data, trainer_of
from torch.utils.data import DataLoader, Dataset

from lightning_perturb.callbacks import PerturbationReport, Recorder, Records, SuspectReport
from lightning_perturb.callbacks.suspects import assess_report, choose
from lightning_perturb.data import Arrays, Chain, LabelsFromFile, Symmetric
from lightning_perturb.methods import CrossEntropy, LogPert

SAMPLES = 400


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def recipe(method=CrossEntropy, **changes):
    return Recipe(method, data={"samples": SAMPLES, "val_size": 50}, trainer={"max_epochs": 6}).but(**changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with both reports and both loggers."""
    folder = tmp_path_factory.mktemp("run")
    loggers = [TensorBoardLogger(folder, name="tb", version=0), CSVLogger(folder, name="csv", version=0)]
    reports = [SuspectReport(sheet=10), PerturbationReport()]
    trainer = fit(recipe(LogPert, trainer={"logger": loggers}), callbacks=[*reports, Recorder()])
    return trainer, folder, *reports


def test_table(run):
    trainer, folder, report, _ = run
    data = trainer.datamodule
    assert report.path == folder / "tb" / "version_0" / "suspects.csv"
    rows = read(report.path)
    assert list(rows[0]) == ["index", "given_label", "suggested_label", "score"]
    assert len(rows) == report.listed > 20
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    index = np.array([int(row["index"]) for row in rows])
    assert set(index) <= set(data.train_index)
    assert len(set(index)) == len(index)

    records = Records.open(folder / "tb" / "version_0")
    for row in rows:
        i, given, suggested = (int(row[name]) for name in ("index", "given_label", "suggested_label"))
        assert given == data.given_labels[i] != suggested
        early = records.prediction[:3, i].tolist()
        assert early.count(suggested) == max(early.count(c) for c in range(CLASSES)) > early.count(given)
        assert float(row["score"]) == pytest.approx(-np.mean(records.margin[:3, i].astype(float)), rel=1e-5)
    listed = {int(row["index"]) for row in rows}
    for i in set(data.train_index) - listed:
        early = records.prediction[:3, i].tolist()
        assert early.count(data.given_labels[i]) == max(early.count(c) for c in range(CLASSES))


def test_summary_against_counting_pairs(run):
    trainer, folder, report, _ = run
    data, records = trainer.datamodule, Records.open(folder / "tb" / "version_0")
    train = data.train_index
    score = -records.margin[:3, train].astype(float).mean(0)
    wrong = data.noisy[train]
    pairs = score[wrong][:, None] - score[~wrong][None]
    auroc = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert report.summary["suspects/auroc"] == pytest.approx(auroc)
    assert auroc > 0.8
    worst = np.sort(score)[::-1][wrong.sum() - 1]
    assert report.summary["suspects/precision"] == pytest.approx(wrong[score >= worst].mean())
    repaired = data.given_labels.copy()
    for row in read(report.path):
        repaired[int(row["index"])] = int(row["suggested_label"])
    accuracy = (repaired == data.true_labels)[train].mean()
    assert report.summary["suspects/repaired_acc"] == pytest.approx(accuracy)
    assert accuracy > 1 - data.noise_rate


def test_is_logged(run):
    _, folder, report, _ = run
    logged = {k: float(v) for row in read(folder / "csv" / "version_0" / "metrics.csv") for k, v in row.items() if v}
    for name, value in report.summary.items():
        assert logged[name] == pytest.approx(value)
    events = EventAccumulator(str(folder / "tb" / "version_0"))
    events.Reload()
    assert {"suspects", "perturbation_norm"} <= set(events.Tags()["images"])
    assert set(report.summary) <= set(events.Tags()["scalars"])


def test_figures_are_written(run):
    _, folder, report, norms = run
    assert report.sheet_path == folder / "tb" / "version_0" / "suspects.png"
    assert min(png_size(report.sheet_path)) > 200
    assert norms.path == folder / "tb" / "version_0" / "perturbation_norm.png"
    assert min(png_size(norms.path)) > 200


def test_repaired_labels_can_be_trained_on(run):
    trainer, _, report, _ = run
    noisy = trainer.datamodule
    repairs = LabelsFromFile(str(report.path), column="suggested_label")
    x, y = digits()
    repaired = Arrays(
        x[:SAMPLES], y[:SAMPLES], x[-50:], y[-50:], num_classes=CLASSES, augment=False, batch_size=16, val_size=50,
        label_noise=Chain([Symmetric(0.4), repairs]),
    )  # fmt: skip
    fit(recipe(trainer={"max_epochs": 1}), data=repaired)
    rows = {int(row["index"]): int(row["suggested_label"]) for row in read(report.path)}
    expected = [rows.get(i, noisy.given_labels[i]) for i in range(SAMPLES)]
    assert repaired.given_labels.tolist() == expected
    assert repaired.noise_rate == pytest.approx(1 - report.summary["suspects/repaired_acc"])
    # the file belongs to those given labels and to no others
    with pytest.raises(ValueError, match="differs from the labels"):
        repairs(noisy.true_labels, CLASSES, np.random.default_rng(0))


def test_share_takes_the_top_also_where_labels_agree(tmp_path):
    report = SuspectReport(str(tmp_path / "deep" / "worst.csv"), share=0.3, sheet=0)
    fit(recipe(), callbacks=[Recorder(str(tmp_path)), report])
    assert report.path == tmp_path / "deep" / "worst.csv"
    assert len(read(report.path)) == report.listed == round(0.3 * 350)
    assert report.sheet_path is None
    assert not list(tmp_path.rglob("*.png"))


def test_choose():
    score = np.array([1.0, np.nan, 3.0, 2.0, 3.0])
    given, suggested = np.array([0, 0, 0, 0, 0], dtype=np.int32), np.array([1, 1, 0, 1, 1])
    assert choose(score, given, suggested, None).tolist() == [4, 3, 0]
    assert choose(score, given, suggested, 0.5).tolist() == [2, 4]
    assert choose(score, given, suggested, 0.0).tolist() == []
    assert choose(score, given, suggested, 1.0).tolist() == [2, 4, 3, 0]


@pytest.mark.parametrize("true", [[0, 1, 2], [1, 2, 0]])
def test_nothing_to_find(true):
    given = np.array([0, 1, 2], dtype=np.int32)
    listed = np.array([0])
    assert assess_report(np.array([1.0, 2.0, 3.0]), given, np.array([1, 1, 1]), np.array(true), listed) == {}


def test_clean_run_has_no_summary_and_little_or_no_table(tmp_path):
    report = SuspectReport(str(tmp_path / "suspects.csv"))
    fit(Recipe(CrossEntropy, data={"noise": 0.0}), callbacks=[Recorder(str(tmp_path)), report])
    assert report.summary == {}
    assert len(read(report.path)) == report.listed


def test_lost_epochs_do_not_count(tmp_path):
    report = SuspectReport(str(tmp_path / "suspects.csv"))
    recorder = Recorder(str(tmp_path))
    fit(Recipe(CrossEntropy), callbacks=[recorder])
    for name, empty in (("margin", np.nan), ("prediction", -1)):
        table = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
        table[:2] = empty
        table.flush()
    trainer = trainer_of(callbacks=[recorder, report])
    trainer.strategy.connect(module_of(Recipe(CrossEntropy)))
    report.on_fit_end(trainer, trainer.lightning_module)
    margin = Records.open(tmp_path).margin[2].astype(float)
    for row in read(report.path):
        assert float(row["score"]) == pytest.approx(-margin[int(row["index"])], rel=1e-4)


def test_table_without_images_and_without_truth(tmp_path):
    class Indexed(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            x, y = digits()
            return x[i].flatten().float(), y[i], i

    class Plain(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(Indexed(), batch_size=20)

    report = SuspectReport(str(tmp_path / "suspects.csv"), share=1.0)
    trainer = trainer_of(callbacks=[Recorder(str(tmp_path)), report])
    trainer.fit(module_of(Recipe(CrossEntropy)), datamodule=Plain())
    assert report.listed == 40
    assert (report.sheet_path, report.summary) == (None, {})


def test_float_images_are_drawn_and_ragged_ones_are_not(tmp_path):
    class Floats(Arrays):
        def raw_inputs(self, positions):
            return super().raw_inputs(positions).float() - 100

    class Ragged(Arrays):
        def raw_inputs(self, positions):
            raise ValueError("Inputs have several shapes.")

    x, y = digits()
    for cls in (Floats, Ragged):
        data = cls(x[:96], y[:96], num_classes=CLASSES, label_noise=Symmetric(0.4), batch_size=16)
        report = SuspectReport(str(tmp_path / f"{cls.__name__}.csv"), sheet=3)
        callbacks = [Recorder(str(tmp_path)), report]
        if cls is Ragged:
            with pytest.warns(UserWarning, match="No contact sheet is made: Inputs have"):
                fit(Recipe(CrossEntropy), callbacks=callbacks, data=data)
            assert report.sheet_path is None
        else:
            fit(Recipe(CrossEntropy), callbacks=callbacks, data=data)
            assert report.sheet_path is not None
        assert report.path.is_file()


@pytest.mark.parametrize("report", [SuspectReport, PerturbationReport])
def test_a_recorder_is_asked_for_before_training(report):
    with pytest.raises(ValueError, match=rf"{report.__name__} reads what a Recorder wrote. Add Recorder\(\)"):
        fit(Recipe(CrossEntropy), callbacks=[report()])


def test_fast_dev_run_writes_nothing(tmp_path):
    reports = [SuspectReport(), PerturbationReport()]
    trainer = {"fast_dev_run": True, "default_root_dir": tmp_path}
    fit(Recipe(LogPert, trainer=trainer), callbacks=[Recorder(), *reports])
    assert [report.path for report in reports] == [None, None]
    assert list(tmp_path.rglob("*")) == []


def test_no_norms_no_figure(tmp_path):
    report = PerturbationReport(str(tmp_path / "norms.png"))
    fit(Recipe(CrossEntropy), callbacks=[Recorder(str(tmp_path)), report])
    assert report.path is None
    assert not (tmp_path / "norms.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.2}, "share=1.2"),
        ({"sheet": -1}, "sheet=-1"),
        ({"part": 0.0}, "part=0.0"),
        ({"path": "suspects.txt"}, "path='suspects.txt'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SuspectReport(**options)


def test_options_of_this_test_file_are_those_of_the_run(run):
    # tiny_data's noise is what the repaired data module repeats
    trainer, *_ = run
    same = tiny_data(samples=SAMPLES, val_size=50)
    same.setup("fit")
    assert torch.equal(torch.from_numpy(same.given_labels), torch.from_numpy(trainer.datamodule.given_labels))
