import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_perturb.figures import noise_tolerance
from lightning_perturb.figures.command import print_figures
from lightning_perturb.figures.noise_bounds import bound_coefficients, bounds_by_noise_rate
from lightning_perturb.figures.noise_tolerance import conditions_figure, noise_conditions
from lightning_perturb.functional import mae_loss


def lines_of(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_coefficients_are_the_printed_ones():
    gce, js = bound_coefficients(q=[0.5], pi1=[0.5], largest=20).axes
    shown = lines_of(gce)["GCE, $q$ = 0.5"]
    np.testing.assert_array_equal(shown[:, 0], np.arange(2, 21))
    np.testing.assert_allclose(shown[:, 1], [(c**0.5 - 1) / 0.5 for c in range(2, 21)])
    assert (lines_of(gce)["oracle"][:, 1] == 1).all()
    # c = 2 by hand: two wrong-or-right predictions against two even ones, each a divergence of entropies
    entropy = lambda *p: -sum(x * math.log(x) for x in p if x)  # noqa: E731
    scale = -0.5 * math.log(0.5)
    certain = entropy(0.5, 0.5) / scale
    even = 2 * (entropy(0.75, 0.25) - 0.5 * entropy(0.5, 0.5)) / scale
    assert lines_of(js)["JS, $\\pi_1$ = 0.5"][0, 1] == pytest.approx(certain - even)


def test_bounds_by_rate_follow_the_theorems():
    high, low, pair = bounds_by_noise_rate(num_classes=4, q=0.5).axes
    name = "GCE, $q$ = 0.5"
    for eta, bound in lines_of(high)[name]:
        assert bound == pytest.approx(eta * 2 / 3)
    ours, oracle = low.get_lines()[0].get_xydata(), lines_of(low)["oracle"]
    for eta, bound in ours:
        assert bound == pytest.approx(-eta * 2 / (3 - 4 * eta))
    for eta, bound in oracle:
        assert bound == pytest.approx(-eta / (3 - 4 * eta + eta))
    for eta, bound in pair.get_lines()[0].get_xydata():
        assert bound == pytest.approx(2 * (1 - eta))
    assert (lines_of(pair)["oracle"][:, 1] == 0).all()
    with pytest.raises(ValueError, match="num_classes=1"):
        bounds_by_noise_rate(num_classes=1)
    with pytest.raises(ValueError, match="largest=1"):
        bound_coefficients(largest=1)


def test_the_bounds_by_one_command(tmp_path):
    written = print_figures(["narl_fig3", "narl_theorems", "--out", str(tmp_path / "new")])
    assert [path.stat().st_size > 10_000 for path in written] == [True, True]
    with pytest.raises(SystemExit, match=f"python -m {noise_tolerance.__name__} FOLDER"):
        noise_tolerance.main([])


@pytest.fixture(scope="module")
def found():
    return noise_conditions(num_classes=3, symmetric=0.3, pair=0.45, samples=1, steps=12)


def test_every_loss_keeps_its_bounds_and_only_the_symmetric_ones_are_tolerant(found):
    assert len({row.name for row in found}) == len(found) == 14
    assert all(row.holds for row in found)
    tolerant = {row.name for row in found if row.tolerant}
    assert {"GCE, q = 1", "RCE", "MAE", "oracle GCE or JS", "oracle PolySoft"} <= tolerant
    assert not tolerant & {"CE", "GCE, q = 0.3", "SL, gamma1 = 0.1, gamma2 = 1"}
    by_name = {row.name: row for row in found}
    assert by_name["CE"].noisy_bound == math.inf
    assert by_name["MAE"].smallest_sum == pytest.approx(2.0)
    assert by_name["MAE"].largest_sum == pytest.approx(2.0)


def test_a_broken_bound_would_be_seen(found):
    row = next(row for row in found if row.name == "GCE, q = 0.3")
    assert row.holds
    assert not replace(row, noisy_bound=row.noisy_gap - 1e-3).holds
    assert not replace(row, clean_bound=row.clean_gap + 1e-3).holds
    assert not replace(row, spread=row.largest_sum - row.smallest_sum - 1e-3).holds
    assert not replace(row, pair_gap=-1e-3).holds


def test_table_and_figure_by_one_command(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(noise_tolerance, "noise_conditions", lambda: found)
    noise_tolerance.main([str(tmp_path / "new")])
    assert "oracle PolySoft" in capsys.readouterr().out
    with (tmp_path / "new" / "noise_tolerance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row.name for row in found]
    assert float(rows[1]["noisy_gap"]) == found[1].noisy_gap
    assert {row["holds"] for row in rows} == {"True"}
    assert (tmp_path / "new" / "noise_tolerance.png").stat().st_size > 10_000


def test_the_figure_shows_gaps_beside_bounds(found):
    figure = conditions_figure(found)
    first = figure.axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in first.patches], [row.noisy_gap for row in found])
    ((points),) = [line.get_xdata() for line in first.get_lines() if line.get_label() == "bound"]
    np.testing.assert_allclose(points, [row.noisy_bound for row in found if math.isfinite(row.noisy_bound)])
    with pytest.raises(ValueError, match="found="):
        conditions_figure([])


def test_the_losses_are_those_that_are_named():
    assert noise_tolerance.losses(4)["MAE"][0] is mae_loss
    oracle = noise_tolerance.oracles(0.2, 4)["oracle PolySoft"]
    assert oracle[1] == (0.0, 0.0)
