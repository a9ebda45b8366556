"""Regions and boundaries of classifiers in the plane."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from lightning_perturb.figures import Classifier, decision_boundaries, save
from lightning_perturb.figures.papers import tax_fig3

X = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


def by_first(points):
    return torch.stack([-points[:, 0], points[:, 0] - 0.5], dim=1)


def test_regions_and_boundary_of_two_classes(tmp_path):
    figure = decision_boundaries([Classifier("net", X, [0, 1, 1], by_first)], ["a", "b"], resolution=101)
    (axes,) = figure.axes
    image = np.asarray(axes.images[0].get_array())
    left, right, bottom, top = axes.images[0].get_extent()
    assert left < -1 < 1 < right
    assert bottom < 0 < 2 < top
    place = np.linspace(left, right, 101)
    np.testing.assert_array_equal(image, np.broadcast_to(place > 0.25, image.shape))
    (boundary,) = axes.collections
    (path,) = [p for p in boundary.get_paths() if len(p.vertices)]
    assert path.vertices[:, 0] == pytest.approx(0.25, abs=1e-6)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["class a", "class b", "boundary"]
    assert imread(save(figure, tmp_path / "a.png")).std() > 0.01


def test_three_classes_and_a_reference():
    directions = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    many = [Classifier(str(k), X, [0, 1, 2], lambda points: points @ directions.T) for k in range(5)]
    figure = decision_boundaries(many, "abc", reference=lambda points: 2 * points @ directions.T, resolution=40)
    assert [axes.get_title() for axes in figure.axes] == ["0", "1", "2", "3", "4"]
    assert set(np.unique(figure.axes[0].images[0].get_array())) == {0, 1, 2}
    assert figure.legends[0].get_texts()[-1].get_text() == "best boundary"


def test_a_classifier_that_knows_one_class_has_no_boundary():
    constant = Classifier("net", X, [0, 1, 1], lambda points: torch.tensor([[1.0, 0.0]]).expand(len(points), 2))
    (axes,) = decision_boundaries([constant], ["a", "b"]).axes
    assert not axes.collections
    assert set(np.unique(axes.images[0].get_array())) == {0}


def test_bad_input():
    with pytest.raises(ValueError, match="is empty"):
        decision_boundaries([], ["a"])
    with pytest.raises(ValueError, match=r"'net' have shape \(3, 3\)"):
        decision_boundaries([Classifier("net", np.zeros((3, 3)), [0, 1, 1], by_first)], ["a", "b"])


def test_figure_3_of_the_taxonomy():
    """Moving the samples, as the paper says, leads the boundary to the best one; nothing else gets as near."""
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    figure = tax_fig3.draw()
    assert torch.equal(torch.rand(1), expected)
    off = {}
    for axes in figure.axes:
        learnt, best = (np.concatenate([p.vertices for p in c.get_paths()]) for c in axes.collections)
        assert np.abs(best.sum(axis=1)).max() < 1e-6
        off[axes.get_title().splitlines()[0]] = -learnt.sum(axis=1).mean() / 2**0.5
    assert len(off) == 8
    assert abs(off.pop("14/30 of C1 and C4 moved")) < 0.05
    # to the side of C3, whose few samples count little
    assert min(off.values()) > 0.2
