"""What samples become when their features are augmented."""

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from testkit.training import Recipe, fit

from lightning_perturb.callbacks import AugmentationReport, augmentation
from lightning_perturb.figures import Augmented, augmented_samples
from lightning_perturb.methods import IADA, CrossEntropy

RECIPE = Recipe(IADA, {"strategy": "testkit.strategies.by_label", "eps_scale": 0.3, "alpha": 0.0}, data={"samples": 96})


def test_what_stands_for_an_augmentation_is_nearest_to_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        augmentation, "augmented_samples", lambda rows: (drawn.extend(rows), augmented_samples(rows))[1]
    )
    report = AugmentationReport(samples=4, draws=2)
    logger = TensorBoardLogger(tmp_path, name="run", version=0)
    trainer = fit(RECIPE.but(trainer={"logger": logger}), callbacks=[report])
    (path,) = report.paths
    assert path.name == "augmented_samples.png"
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert "augmented_samples" in events.Tags()["images"]

    # α = 0: the features move by ε s alone, which is worked out here by autograd
    method, data = trainer.lightning_module.eval(), trainer.datamodule
    epochs, sums = report.table()
    epsilon = float(sums[-1, 0] / sums[-1, 1])
    assert epochs == [0, 1, 2]
    assert epsilon == pytest.approx(0.3)
    order = torch.from_numpy(data.train_index)
    raw = data.raw_inputs(order)
    body, head = method.net.backbone, method.net.classifier
    features = body(data.normalize(raw).flatten(1)).detach()
    given = torch.from_numpy(data.given_labels)[order]
    assert len(drawn) == 4
    assert len({row.name for row in drawn}) == 4
    for row in drawn:
        place = next(i for i in range(len(order)) if given[i] == int(row.name))
        np.testing.assert_array_equal(row.image, raw[place].numpy())
        h = features[place].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(head(h)[None], given[place][None])
        (gradient,) = torch.autograd.grad(loss, h)
        assert row.loss == pytest.approx(float(loss), rel=1e-4)
        for images, losses, sign in ((row.easier, row.easier_loss, -1), (row.harder, row.harder_loss, 1)):
            moved = (h + sign * epsilon * gradient.sign()).detach()
            expected = torch.nn.functional.cross_entropy(head(moved)[None], given[place][None])
            np.testing.assert_allclose(losses, [float(expected)] * 2, rtol=1e-4)
            distance = (features - moved).norm(dim=1)
            distance[place] = torch.inf
            for image in images:
                np.testing.assert_array_equal(image, raw[int(distance.argmin())].numpy())
        assert row.easier_loss[0] < row.loss < row.harder_loss[0]


def test_other_methods_have_no_figure(tmp_path):
    report = AugmentationReport(folder=str(tmp_path))
    fit(Recipe(CrossEntropy, data={"samples": 96}), callbacks=[report])
    assert report.paths == []


@pytest.mark.parametrize("full", [True, False])
def test_the_root_of_a_covariance(full):
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    covariance = rows.T @ rows if full else rows[0] ** 2
    root = augmentation._root(covariance)
    torch.testing.assert_close(root @ root.T if full else root**2, covariance, atol=1e-5, rtol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="draws=0"):
        AugmentationReport(draws=0)
    with pytest.raises(ValueError, match="samples=\\[\\] is empty"):
        augmented_samples([])
    image, none = np.zeros((1, 4, 4), np.uint8), np.zeros((0, 1, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="equally many"):
        augmented_samples([Augmented("a", image, 0.0, image[None], np.zeros(1), none, np.zeros(0))])
