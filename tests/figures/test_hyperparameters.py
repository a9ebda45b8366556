import numpy as np
import pytest

from lightning_perturb.figures import (
    hyperparameter_distributions,
    hyperparameters_by_margin,
    loss_over_epochs,
    save,
    values_over_epochs,
)

NOISY = np.array([True, False, False, True, False])
NAN = np.nan


def lines_of(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_by_margin_shows_every_sample_once_in_its_group(tmp_path):
    margins = np.array([-2.0, 1.0, NAN, 3.0, 2.0])
    values = {"q": np.array([0.9, 0.2, 0.3, NAN, 0.1]), "extra": np.arange(5.0)}
    figure = hyperparameters_by_margin(margins, values, NOISY, fixed={"q": 0.7})
    first, second = figure.axes
    shown = lines_of(first)
    np.testing.assert_array_equal(shown["noisy (1)"], [[-2.0, 0.9]])
    np.testing.assert_array_equal(shown["clean (2)"], [[1.0, 0.2], [2.0, 0.1]])
    assert set(shown["fixed: 0.7"][:, 1]) == {0.7}
    assert first.get_ylabel() == "$q$"
    assert second.get_ylabel() == "extra"
    np.testing.assert_array_equal(lines_of(second)["noisy (2)"], [[-2.0, 0.0], [3.0, 3.0]])
    assert save(figure, tmp_path / "a.png").stat().st_size > 5000


def test_by_margin_thins_what_would_hide_itself_and_the_same_way_each_time():
    margins = np.linspace(-1, 1, 50_000)
    first, second = (lines_of(hyperparameters_by_margin(margins, {"q": margins}).axes[0]) for _ in range(2))
    ((label, points),) = first.items()
    assert label == "all samples (50,000)"
    assert points.shape == (20_000, 2)
    assert len(np.unique(points[:, 0])) == 20_000
    np.testing.assert_array_equal(points, second[label])


def test_distributions_show_epochs_from_the_first_to_the_last_with_values(tmp_path):
    values = np.full((11, 5), NAN, dtype=np.float16)
    values[2:10] = np.linspace(0, 1, 8)[:, None] + np.array([0.5, 0.0, 0.0, 0.5, NAN])
    figure = hyperparameter_distributions("pi1", values, NOISY, shown=3)
    assert [axes.get_title() for axes in figure.axes] == ["epoch 3", "epoch 7", "epoch 10"]
    clean, noisy = figure.axes[0].get_legend().get_texts()
    assert (clean.get_text(), noisy.get_text()) == ("clean (2)", "noisy (2)")
    assert save(figure, tmp_path / "a.png").stat().st_size > 5000


def test_distributions_of_one_epoch_and_one_value():
    figure = hyperparameter_distributions("weight", np.full((1, 4), 0.5))
    assert [axes.get_title() for axes in figure.axes] == ["epoch 1"]
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "all samples (4)"


def test_values_over_epochs_are_medians_by_group():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(4, 5)).astype(np.float16)
    values[1] = NAN
    values[2, 1] = NAN
    (axes,) = values_over_epochs("alpha", values, NOISY).axes
    shown = lines_of(axes)
    expected = [[e + 1, np.median([v for v in values[e, ~NOISY] if not np.isnan(v)])] for e in (0, 2, 3)]
    np.testing.assert_allclose(shown["clean (3)"], expected, rtol=1e-3)
    np.testing.assert_allclose(shown["noisy (2)"][:, 1], values[[0, 2, 3]][:, NOISY].mean(1), rtol=2e-3)


@pytest.mark.parametrize("noisy", [None, np.zeros(5, dtype=bool), NOISY])
def test_loss_curves_are_the_means(noisy):
    losses = np.arange(15, dtype=np.float64).reshape(3, 5) ** 2
    losses[0] = NAN
    (axes,) = loss_over_epochs(losses, noisy, "GCE").axes
    shown = lines_of(axes)
    np.testing.assert_allclose(shown["all samples (5)"], [[2, losses[1].mean()], [3, losses[2].mean()]])
    if noisy is NOISY:
        np.testing.assert_allclose(shown["clean (3)"][:, 1], losses[1:, ~NOISY].mean(1))
        np.testing.assert_allclose(shown["noisy (2)"][:, 1], losses[1:, NOISY].mean(1))
    else:
        assert len(shown) == 1
    assert axes.get_title() == "GCE"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match=r"values=\{\} is empty"):
        hyperparameters_by_margin(np.zeros(3), {})
    empty = np.full((2, 3), NAN)
    with pytest.raises(ValueError, match="'q' has no values"):
        hyperparameters_by_margin(np.zeros(3), {"q": empty[0]})
    for figure in (hyperparameter_distributions, values_over_epochs):
        with pytest.raises(ValueError, match="'q' has no values"):
            figure("q", empty)
    with pytest.raises(ValueError, match="'losses' has no values"):
        loss_over_epochs(empty)
