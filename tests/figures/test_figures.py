import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_perturb.figures import (
    accuracy_by_value,
    accuracy_curves,
    contact_sheet,
    loss_ratio_curve,
    perturbation_distribution,
    save,
    spl_weight_curves,
)


def axes_of(figure):
    (axes,) = figure.axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    return axes


def pixels(path):
    import matplotlib.image

    return matplotlib.image.imread(path)[..., :3]


def assert_drawn(path):
    image = pixels(path)
    assert min(image.shape[:2]) > 100
    assert image.std() > 0.01


def test_save_writes_png_and_tensorboard_and_passes_other_loggers_over(tmp_path):
    board = TensorBoardLogger(tmp_path, name="board", version=0)
    loggers = [board, CSVLogger(tmp_path, name="csv", version=0)]
    figure = spl_weight_curves()
    path = save(figure, tmp_path / "deep" / "fig11.png", loggers, step=7)
    assert_drawn(path)
    save(figure, tmp_path / "other.png", loggers, tag="named")
    board.experiment.flush()
    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert set(events.Tags()["images"]) == {"fig11", "named"}
    (event,) = events.Images("fig11")
    assert (event.step, event.height, event.width) == (7, *pixels(path).shape[:2])


def test_figures_leave_pyplot_alone(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    save(spl_weight_curves(), tmp_path / "a.png")
    save(accuracy_curves([("a", [0], [0.5])]), tmp_path / "b.png")
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 8, 8), dtype=np.uint8)
    names = [f"class {c}" for c in range(5)]
    figure = contact_sheet(images, names, ["a rather long class name", *names[:4]], index=np.arange(10, 15), columns=4)
    assert len(figure.axes) == 5
    for axes, image in zip(figure.axes, images, strict=True):
        shown = np.asarray(axes.images[0].get_array())
        np.testing.assert_array_equal(shown, image[0] if channels == 1 else image.transpose(1, 2, 0))
    assert [axes.get_xlabel() for axes in figure.axes] == [f"# {i}" for i in range(10, 15)]
    assert figure.axes[1].get_title() == "class 1 → class 0"
    assert figure.axes[0].get_title() == "class 0\n→ a rather long …"
    assert_drawn(save(figure, tmp_path / "sheet.png"))


def test_contact_sheet_grey_values_are_not_stretched():
    figure = contact_sheet(np.full((1, 1, 4, 4), 128, dtype=np.uint8), ["a"], ["b"])
    assert figure.axes[0].images[0].get_clim() == (0, 255)


@pytest.mark.parametrize(("shape", "names"), [((0, 3, 8, 8), 0), ((2, 8, 8), 2), ((2, 4, 8, 8), 2), ((2, 3, 8, 8), 1)])
def test_contact_sheet_refuses(shape, names):
    with pytest.raises(ValueError, match="images"):
        contact_sheet(np.zeros(shape, dtype=np.uint8), ["a"] * names, ["a"] * names)


def heights(axes):
    # each group is drawn twice, filled and as a line
    return {patch.get_label(): np.asarray(patch.get_data().values) for patch in axes.patches[1::2]}


def test_perturbation_distribution_splits_clean_and_noisy(tmp_path):
    norms = np.array([0.0, 0.0, 1.0, 4.0, 4.0, 2.0, np.nan], dtype=np.float16)
    noisy = np.array([False, False, False, True, True, True, True])
    figure = perturbation_distribution(norms, noisy, bins=4)
    found = heights(axes_of(figure))
    np.testing.assert_allclose(found["clean (3)"], [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(found["noisy (3)"], [0, 0, 1 / 3, 2 / 3])
    assert_drawn(save(figure, tmp_path / "fig7.png"))


@pytest.mark.parametrize("noisy", [None, np.zeros(3, dtype=bool)])
def test_perturbation_distribution_of_one_group(noisy):
    figure = perturbation_distribution(np.zeros(3), noisy, bins=2)
    np.testing.assert_allclose(heights(axes_of(figure))["all samples (3)"], [1, 0])


def test_perturbation_distribution_needs_numbers():
    with pytest.raises(ValueError, match="norms hold no numbers"):
        perturbation_distribution(np.full(3, np.nan))


def test_accuracy_curves(tmp_path):
    figure = accuracy_curves([("base", range(3), [0.1, 0.5, 0.4]), ("MixPert", [0, 2], [0.2, 0.6])], ylabel="val")
    axes = axes_of(figure)
    assert [line.get_label() for line in axes.lines] == ["base", "MixPert"]
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [1, 3])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [0.2, 0.6])
    assert axes.get_ylabel() == "val"
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 2
    assert_drawn(save(figure, tmp_path / "fig8.png"))


def test_many_curves_can_be_told_apart():
    axes = axes_of(accuracy_curves([(str(i), [0, 1], [0, i / 20]) for i in range(20)]))
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 20


def test_accuracy_curves_refuses():
    with pytest.raises(ValueError, match="is empty"):
        accuracy_curves([])
    with pytest.raises(ValueError, match="'a' has 2 epochs and 1 values"):
        accuracy_curves([("a", [0, 1], [0.5])])


def test_spl_weight_curves():
    axes = axes_of(spl_weight_curves(lam=0.5, lam_low=0.25))
    curves = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(curves) == {"hard", "linear", "logarithmic", "mixture"}
    loss = np.asarray(curves["linear"].get_xdata())
    np.testing.assert_allclose(curves["linear"].get_ydata(), np.maximum(0, 1 - loss / 0.5), atol=1e-12)
    np.testing.assert_array_equal(curves["hard"].get_ydata(), loss <= 0.5)
    for line in curves.values():
        weights = np.asarray(line.get_ydata())
        assert weights[0] == pytest.approx(1)
        assert (np.diff(weights) <= 1e-12).all()
        assert (weights[loss > 0.5] == 0).all()


def test_loss_ratio_curve(tmp_path):
    torch.manual_seed(0)
    logits, target = torch.randn(200, 5), torch.randint(5, (200,))
    eta, tau = 2.5 * float(logits.norm(dim=1).max()), 1.5
    figure = loss_ratio_curve(logits, target, eta, tau)
    line = axes_of(figure).lines[0]
    loss, ratio = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    probability = torch.softmax(logits.double(), 1)[torch.arange(200), target]
    np.testing.assert_allclose(loss, np.sort(-probability.log().numpy()), rtol=1e-5)
    assert (ratio[loss < tau] == 1).all()
    assert (ratio[loss >= tau] < 0.1).all()
    assert_drawn(save(figure, tmp_path / "fig12.png"))


def test_accuracy_by_value(tmp_path):
    figure = accuracy_by_value([("a", [0.1, 0.2], [0.5, 0.7], [0.0, 0.1]), ("b", [0.1], [0.4], [0.2])], "lam")
    axes = axes_of(figure)
    assert axes.get_xlabel() == "lam"
    first, second = (bars.lines[0] for bars in axes.containers)
    np.testing.assert_allclose(first.get_xydata(), [[0.1, 0.5], [0.2, 0.7]])
    np.testing.assert_allclose(second.get_xydata(), [[0.1, 0.4]])
    reach = axes.containers[0].lines[2][0].get_segments()[1]
    np.testing.assert_allclose(reach[:, 1], [0.6, 0.8])
    assert_drawn(save(figure, tmp_path / "fig9.png"))


def test_accuracy_by_value_refuses():
    with pytest.raises(ValueError, match="lines=\\[\\] is empty"):
        accuracy_by_value([], "lam")
    with pytest.raises(ValueError, match="'a' has 2 values, 1 means and 1 deviations"):
        accuracy_by_value([("a", [1, 2], [0.5], [0.0])], "lam")
