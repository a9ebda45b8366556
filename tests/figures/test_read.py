import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from testkit.training import Recipe, fit

from lightning_perturb.figures import read_metric
from lightning_perturb.methods import CrossEntropy


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    loggers = [CSVLogger(folder, name="csv", version=0), TensorBoardLogger(folder, name="tb", version=0)]
    recipe = Recipe(CrossEntropy, data={"val_size": 16}, trainer={"logger": loggers, "log_every_n_steps": 1})
    trainer = fit(recipe)
    return folder, float(trainer.callback_metrics["val/acc"])


@pytest.mark.parametrize("place", ["csv/version_0", "csv/version_0/metrics.csv", "tb/version_0"])
def test_reads_what_lightning_wrote(run, place):
    folder, last = run
    epochs, values = read_metric(folder / place, "val/acc")
    assert epochs.tolist() == [0, 1, 2]
    assert values[-1] == pytest.approx(last, rel=1e-6)


def test_both_formats_agree(run):
    folder, _ = run
    for name in ("val/acc", "train/loss"):
        table, events = read_metric(folder / "csv/version_0", name), read_metric(folder / "tb/version_0", name)
        np.testing.assert_array_equal(table[0], events[0])
        np.testing.assert_allclose(table[1], events[1], rtol=1e-6)


def test_one_event_file(run):
    folder, last = run
    (path,) = (folder / "tb/version_0").glob("events.out.tfevents.*")
    assert read_metric(path, "val/acc")[1][-1] == pytest.approx(last, rel=1e-6)


def test_the_last_value_of_an_epoch_counts(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,loss\n1,9,0.1\n0,1,0.9\n0,2,0.8\n0,3,\n,4,0.7\n")
    epochs, values = read_metric(path, "loss")
    assert epochs.tolist() == [0, 1]
    assert values.tolist() == [0.8, 0.1]


@pytest.mark.parametrize("place", ["csv/version_0", "tb/version_0"])
def test_unknown_metric_lists_the_known(run, place):
    with pytest.raises(ValueError, match=r"name='acc' was not logged.*val/acc"):
        read_metric(run[0] / place, "acc")


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="CSVLogger or TensorBoardLogger"):
        read_metric(tmp_path, "val/acc")
    with pytest.raises(FileNotFoundError, match="CSVLogger or TensorBoardLogger"):
        read_metric(tmp_path / "missing.csv", "val/acc")
