"""The command that draws the papers' figures."""

import inspect

import matplotlib.image
import numpy as np
import pytest

from lightning_perturb.cli import main
from lightning_perturb.figures import papers
from lightning_perturb.figures.command import paper_figures
from lightning_perturb.figures.errors import error_curves
from lightning_perturb.functional import imbalance_errors

LPL = [f"lpl_fig{number}" for number in (3, 4, 5, 6)]


def test_it_lists_every_figure_with_its_first_line(capsys):
    main(["figures"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(LPL) <= set(lines)
    for name, draw in paper_figures().items():
        assert lines[name] == inspect.getdoc(draw).splitlines()[0]


def test_a_new_module_is_a_new_figure(monkeypatch, tmp_path, capsys):
    (tmp_path / "my_fig1.py").write_text(
        "from lightning_perturb.figures.style import plot\n"
        "def draw():\n    'My figure.'\n    return plot('x', 'y')[0]\n"
    )
    (tmp_path / "_shared.py").write_text("raise AssertionError('not a figure')\n")
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])
    main(["figures"])
    assert "My figure." in capsys.readouterr().out
    main(["figures", "my_fig1", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "my_fig1.png")
    assert (tmp_path / "out" / "my_fig1.png").is_file()


def test_what_is_no_figure_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["figures", "lpl_fig99"])
    assert stop.value.code == 2
    assert "'lpl_fig99' is no figure. Choose from: lpl_fig1" in capsys.readouterr().err


def test_the_files(tmp_path, capsys):
    main(["figures", "lpl_fig6", "lpl_fig6", "--out", str(tmp_path)])
    assert capsys.readouterr().out.split() == [str(tmp_path / "lpl_fig6.png")]
    assert matplotlib.image.imread(tmp_path / "lpl_fig6.png").std() > 0.01


@pytest.mark.parametrize("name", LPL)
def test_the_simulation_lies_on_the_curves(name):
    left, right = paper_figures()[name]().axes
    minus, plus, *found, _ = left.get_lines()
    total, found_total, _ = right.get_lines()
    for curve, points in zip((minus, plus, total), (*found, found_total), strict=True):
        expected = np.interp(points.get_xdata(), curve.get_xdata(), curve.get_ydata())
        # the minimum of Fig. 5 is flat: its threshold, and with it both errors, scatters
        np.testing.assert_allclose(points.get_ydata(), expected, atol=1.2e-2 if name == "lpl_fig5" else 4e-3)


def test_error_curves_are_the_functions_and_their_mean():
    figure = error_curves(imbalance_errors, 2.0, "rho", 4.0)
    (minus, plus), (total,) = (axes.get_lines() for axes in figure.axes)
    assert (minus.get_ydata()[-1], plus.get_ydata()[-1]) == pytest.approx(imbalance_errors(4.0))
    assert total.get_ydata()[0] == pytest.approx((2 * 0.04068 + 0.13884) / 3, abs=1e-5)
