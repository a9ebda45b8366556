import pytest

from lightning_perturb.figures import robustness_curve, save


def test_curves_by_radius(tmp_path):
    figure = robustness_curve({"MixPert": {8 / 255: 0.4, 0.0: 0.9}, "CE": {0.0: 0.95, 8 / 255: 0.1}})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["MixPert", "CE"]
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([0.0, 8.0])
    assert axes.lines[0].get_ydata().tolist() == [0.9, 0.4]
    assert axes.get_xlabel() == "radius of the attack, l∞, pixel values of 0 to 255"
    assert save(figure, tmp_path / "a.png").stat().st_size > 1000


def test_other_units_stay():
    (axes,) = robustness_curve({"a": {0.0: 1.0, 0.5: 0.3}}, "l2").axes
    assert axes.lines[0].get_xdata().tolist() == [0.0, 0.5]
    assert axes.get_xlabel().endswith("l2, pixel values of [0, 1]")
    (axes,) = robustness_curve({"a": {0.0: 1.0}}, "linf", pixels=False).axes
    assert axes.get_xlabel().endswith("units of the input")


def test_faults_are_named():
    with pytest.raises(ValueError, match="is empty"):
        robustness_curve({})
    with pytest.raises(ValueError, match="'a' has no radius"):
        robustness_curve({"a": {}})
