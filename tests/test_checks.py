import math

import pytest

from lightning_perturb.checks import check_choice, check_positive, check_range, check_rate, check_used


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_shares(value):
    check_rate("share", value)


@pytest.mark.parametrize("value", [-0.1, 1.1, 40, math.nan, math.inf])
def test_no_shares(value):
    with pytest.raises(ValueError, match=r"share=.* is not a share.*0 to 1"):
        check_rate("share", value)


@pytest.mark.parametrize(("value", "options"), [(1, {}), (1e-9, {}), (0, {"zero": True})])
def test_positive(value, options):
    check_positive("eta", value, **options)


@pytest.mark.parametrize(
    ("value", "options"),
    [(0, {}), (-1, {}), (-1, {"zero": True}), (math.nan, {}), (math.inf, {}), (math.nan, {"zero": True})],
)
def test_not_positive(value, options):
    with pytest.raises(ValueError, match=r"eta="):
        check_positive("eta", value, **options)


def test_ranges():
    check_range("m", 0, 0, 1)
    check_range("m", 1, 0, 1)
    for value, options in [(0, {"open_low": True}), (1, {"open_high": True}), (-0.1, {}), (1.1, {}), (math.nan, {})]:
        with pytest.raises(ValueError, match=r"m=.* is outside [\[(]0, 1[\])]"):
            check_range("m", value, 0, 1, **options)


def test_choices():
    check_choice("mode", "b", ("b", "a"))
    with pytest.raises(ValueError, match=r"mode='c' is unknown. Choose one of: a, b"):
        check_choice("mode", "c", ("b", "a"))


def test_arguments_without_use():
    check_used("momentum", 0.9, 0.9, "update", "exact", ("joint",))
    check_used("momentum", 0.5, 0.9, "update", "joint", ("joint", "other"))
    with pytest.raises(ValueError, match=r"momentum=0.5 contradicts update='exact'.*update='joint' or 'other'"):
        check_used("momentum", 0.5, 0.9, "update", "exact", ("joint", "other"))
