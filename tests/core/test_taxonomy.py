import dataclasses

import numpy as np
import pytest

from lightning_perturb.core import Coordinates, DataFacts, Needs


def test_words_or_several():
    one = Coordinates.of("logit", ("positive", "negative"), ["meta"], "corpus")
    assert one == Coordinates(("logit",), ("positive", "negative"), ("meta",), ("corpus",))
    assert str(one) == "logit x positive+negative x meta x corpus"
    assert str(Coordinates()) == "- x - x - x -"
    assert {one: 1}[Coordinates.of("logit", ("positive", "negative"), "meta", "corpus")] == 1


@pytest.mark.parametrize("field", ["target", "direction", "inference", "granularity"])
def test_a_word_outside_the_taxonomy_is_told_with_its_field(field):
    words = {
        "target": "label",
        "direction": "positive",
        "inference": "prior",
        "granularity": "sample",
        field: "sideways",
    }
    with pytest.raises(ValueError, match=rf"{field}='sideways' is not in the taxonomy: "):
        Coordinates.of(**words)


def test_coordinates_and_needs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Coordinates().target = ("logit",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Needs().index = True


def test_a_method_needs_nothing_unless_it_says_so():
    assert Needs() == Needs(index=False, views=1, meta=False, scores=False)
    assert DataFacts(3, 2, np.array([1, 2])).mean is None
