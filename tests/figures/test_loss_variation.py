import matplotlib.image
import numpy as np
import pytest
import torch

from lightning_perturb.figures import ClassVariation, loss_variation_by_class, loss_variation_over_epochs, save
from lightning_perturb.figures.command import paper_figures
from lightning_perturb.figures.papers import _training
from lightning_perturb.figures.style import COLORS

COUNTS = np.array([20, 0, 3, 70])


def test_classes_stand_from_frequent_to_rare_and_signs_have_colours(tmp_path):
    values = np.array([0.5, np.nan, 0.9, -0.1])
    figure = loss_variation_by_class(ClassVariation(values, COUNTS, "LA", ["a", "b", "c", "d"]))
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [-0.1, 0.5, 0.9]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["d", "a", "c"]
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
    assert colours == [COLORS[0], COLORS[1], COLORS[1]]
    assert axes.get_title() == "LA"
    assert axes.get_ylabel() == "relative loss variation"
    low, high = axes.get_ylim()
    assert low < -0.1 < 0.9 < high
    assert axes.yaxis.get_major_formatter()(-0.14) == "−14%"
    assert save(figure, tmp_path / "a.png").stat().st_size > 1000


def test_several_plots_stand_two_in_a_row():
    one = ClassVariation(np.zeros(4), COUNTS)
    many = ClassVariation(np.linspace(-1, 1, 200), np.arange(200)[::-1])
    figure = loss_variation_by_class(one, many, one)
    assert [axes.get_xlabel() for axes in figure.axes] == 3 * ["class, the most frequent first"]
    assert [axes.get_ylabel() != "" for axes in figure.axes] == [True, False, True]
    assert not {"150", "151"} <= {tick.get_text() for tick in figure.axes[1].get_xticklabels()}
    (axes,) = loss_variation_by_class(ClassVariation(np.arange(3) / 9, np.ones(3, dtype=int))).axes
    assert axes.get_xlabel() == "class"
    # nothing that moves has room, and no scale of rounding errors
    low, high = figure.axes[0].get_ylim()
    assert low < 0 < high


def test_groups_by_epoch():
    curves = {"head": ([3, 4], [-0.6, -0.7]), "tail": ([3, 4], [0.1, 0.0])}
    (axes,) = loss_variation_over_epochs(curves).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["head", "tail"]
    assert axes.lines[1].get_xdata().tolist() == [4, 5]
    assert axes.lines[1].get_ydata().tolist() == [-0.6, -0.7]
    (axes,) = loss_variation_over_epochs({"all": ([0], [0.5])}).axes
    assert axes.get_legend() is None


def test_faults_are_named():
    with pytest.raises(ValueError, match="no variation to draw"):
        loss_variation_by_class()
    with pytest.raises(ValueError, match="3 values, 4 counts and 3 names of the variation 'LA'"):
        loss_variation_by_class(ClassVariation(np.zeros(3), COUNTS, "LA"))
    with pytest.raises(ValueError, match="variation '' hold no numbers"):
        loss_variation_by_class(ClassVariation(np.full(4, np.nan), COUNTS))
    with pytest.raises(ValueError, match="is empty"):
        loss_variation_over_epochs({})
    with pytest.raises(ValueError, match="'tail' has 2 epochs and 1 variations"):
        loss_variation_over_epochs({"tail": ([0, 1], [0.5])})


@pytest.fixture
def drawn(monkeypatch):
    """Draws a figure after fewer epochs: the bars of each plot by its title, and the order of the classes."""
    train = _training.train
    monkeypatch.setattr(_training, "train", lambda method, data, epochs, callbacks: train(method, data, 4, callbacks))

    def bars(name):
        axes = paper_figures()[name]().axes
        return {one.get_title(): np.array([bar.get_height() for bar in one.patches]) for one in axes}

    return bars


def test_figure_2_of_the_taxonomy(drawn):
    """The losses of the head fall, those of the tail rise."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    (bars,) = drawn("tax_fig2").values()
    assert torch.equal(torch.rand(1), expected)
    assert len(bars) == 10
    assert bool((bars[:3] < 0).all() and (bars[-2:] > 0).all())


def test_figure_1_of_lpl(drawn):
    found = drawn("lpl_fig1")
    assert list(found) == ["ISDA, balanced", "ISDA, long tail", "LA, long tail", "LDAM, long tail"]
    for name in ("ISDA, balanced", "ISDA, long tail", "LDAM, long tail"):
        assert bool((found[name] > 0).all()), name


def test_figure_2_of_lpl(drawn):
    found = drawn("lpl_fig2")
    assert list(found) == ["NTR, pos", "NTR, neg", "LC, pos", "LC, neg"]
    assert bool(found["NTR, pos"][0] < 0 < found["NTR, pos"][-1])
    assert bool(found["NTR, neg"][0] > 0 > found["NTR, neg"][-1])
    assert max(found["LC, pos"].mean(), found["LC, neg"].mean()) < 0
    assert found["LC, pos"][0] < found["LC, pos"][-1]


def test_figure_11_of_lpl(drawn):
    found = drawn("lpl_fig11")
    assert list(found) == ["LPL, balanced", "LPL, long tail", "LPL, several labels, pos", "LPL, several labels, neg"]
    balanced, tail, pos, neg = found.values()
    assert balanced.min() < 0 < balanced.max()
    assert bool((tail[:4] < 0).all() and (tail[5:] > 0).all())
    assert bool((pos[:5] < 0).all() and (pos[5:] > 0).all())
    assert bool((neg[:5] > 0).all() and (neg[5:] < 0).all())
