"""The generated reviews."""

import re

import numpy as np
import pytest

from lightning_perturb.data import GeneratedReviews
from lightning_perturb.data.generated_reviews import _BAD, _GOOD


def described(text):
    """What words like "truly not bad" count."""
    *before, word = text.split()
    score = 1.0 if word in _GOOD else -1.0
    assert word in _GOOD + _BAD
    if set(before) & {"truly", "very", "utterly", "extremely"}:
        score *= 2
    return -score if set(before) & {"not", "hardly", "never", "anything", "far"} else score


def judged(text):
    found = re.fullmatch(r"the \w+ (?:is|was|seemed|felt) (.*)", text)
    return described(found[1]) if found else None


def counted(statement):
    """What a statement counts, read off the text."""
    if found := re.fullmatch(r"although (.*) , (.*)", statement):
        return judged(found[1]) / 2 + judged(found[2])
    if found := re.fullmatch(r"i expected it to be .* but it was (.*)", statement):
        return described(found[1])
    if " called the " in statement:
        return 0.0
    score = judged(statement)
    return 0.0 if score is None else score


def test_labels_follow_from_the_texts():
    data = GeneratedReviews(samples=300, test_samples=100)
    for split, number in (("train", 300), ("test", 100)):
        texts, labels = data.read_texts(split)
        assert len(texts) == len(labels) == number
        assert np.bincount(labels).tolist() == [number // 2, number // 2]
        for text, label in zip(texts, labels, strict=True):
            total = sum(counted(part) for part in text.removesuffix(" .").split(" . "))
            assert (total > 0) == label
            assert total
    assert data.read_texts("val") is None
    assert (data.num_classes, data.class_names) == (2, ["negative", "positive"])


def test_the_draw_is_its_own():
    texts = GeneratedReviews(samples=10, seed=1).read_texts("train")[0]
    assert texts == GeneratedReviews(samples=10, seed=2).read_texts("train")[0]
    assert texts != GeneratedReviews(samples=10, draw_seed=2).read_texts("train")[0]


def test_too_few_samples():
    with pytest.raises(ValueError, match="samples=3 leaves a class without"):
        GeneratedReviews(samples=3)
