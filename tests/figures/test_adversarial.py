import numpy as np
import pytest

from lightning_perturb.figures import adversarial_by_class, adversarial_over_epochs, save


def test_classes_stand_from_frequent_to_rare():
    figure = adversarial_by_class(np.array([0.5, np.nan, 0.9, 0.1]), np.array([20, 0, 3, 70]), ["a", "b", "c", "d"])
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.5, 0.9]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["d", "a", "c"]
    assert axes.get_ylabel() == "share of adversarial samples"


def test_many_classes_have_no_names(tmp_path):
    shares = np.linspace(0, 1, 200)
    figure = adversarial_by_class(shares, np.arange(200)[::-1])
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx(shares.tolist())
    assert not {"150", "151"} <= {tick.get_text() for tick in figure.axes[0].get_xticklabels()}
    assert save(figure, tmp_path / "many.png").stat().st_size > 1000


def test_groups_by_epoch():
    figure = adversarial_over_epochs({"clean": ([3, 4], [0.6, 0.7]), "noisy": ([3, 4], [0.1, 0.0])})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["clean", "noisy"]
    assert axes.lines[1].get_xdata().tolist() == [4, 5]
    assert axes.lines[1].get_ydata().tolist() == [0.1, 0.0]


def test_faults_are_named():
    with pytest.raises(ValueError, match="2 shares, 3 counts and 2 names"):
        adversarial_by_class(np.zeros(2), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="shares hold no numbers"):
        adversarial_by_class(np.full(2, np.nan), np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="is empty"):
        adversarial_over_epochs({})
    with pytest.raises(ValueError, match="'clean' has 2 epochs and 1 shares"):
        adversarial_over_epochs({"clean": ([0, 1], [0.5])})
