"""The picture of samples and boundary at the end of training."""

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import trainer_of

from lightning_perturb.callbacks import BoundaryReport
from lightning_perturb.data import Digits, TwoGaussians
from lightning_perturb.methods import CrossEntropy
from lightning_perturb.nets import MLP


def test_png_and_tensorboard(tmp_path):
    report = BoundaryReport()
    board = TensorBoardLogger(tmp_path, name="board", version=0)
    method = CrossEntropy(net=MLP(2, 2, (8,), norm=True), num_classes=2)
    trainer_of(max_epochs=1, callbacks=[report], logger=board).fit(method, datamodule=TwoGaussians(samples=124))
    assert report.path.name == "decision_boundary.png"
    assert report.path.parent == tmp_path / "board" / "version_0"
    assert imread(report.path).std() > 0.01
    assert method.training
    board.experiment.flush()
    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["decision_boundary"]
    elsewhere = BoundaryReport(str(tmp_path / "mine.png"))
    trainer_of(max_epochs=1, callbacks=[elsewhere]).fit(method, datamodule=TwoGaussians(samples=124))
    assert elsewhere.path == tmp_path / "mine.png"


def test_data_that_are_no_points_of_the_plane():
    method = CrossEntropy(net=MLP(10, 64, (8,)), num_classes=10)
    with pytest.raises(ValueError, match=r"Digits has samples of shape \(1, 8, 8\)"):
        trainer_of(max_epochs=1, callbacks=[BoundaryReport()]).fit(method, datamodule=Digits())
    method = CrossEntropy(net=MLP(2, 2, ()), num_classes=2)
    data = TwoGaussians()
    data.setup()
    with pytest.raises(ValueError, match="NoneType has samples that it cannot read"):
        trainer_of(max_epochs=1, callbacks=[BoundaryReport()]).fit(method, data.train_dataloader())
