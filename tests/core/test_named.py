import math

import pytest

from lightning_perturb.core.named import named_function


def known():
    """A function of this file."""


def test_a_known_name_or_an_import_path():
    assert named_function("rule", "known", [known]) is known
    assert named_function("rule", "math.sin", [known]) is math.sin


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unknown", r"rule names 'unknown', which is unknown. Choose from known, or give the import path"),
        ("math.nothing", "rule names 'math.nothing', which cannot be imported"),
        ("no_module_of_this_name.f", "cannot be imported: No module named"),
        ("math.pi", "which is 3.14.* and no function"),
    ],
)
def test_anything_else_is_named(name, text):
    with pytest.raises(ValueError, match=text):
        named_function("rule", name, [known])
