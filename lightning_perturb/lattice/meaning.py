"""Which cells of the lattice have no meaning, and why."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from lightning_perturb.core.taxonomy import GRANULARITIES, INFERENCES, TARGETS

#: a cell's direction: one of the two, or one for some groups and the other for the rest
CELL_DIRECTIONS = ("positive", "negative", "mixed")

_SEARCHED = ("regularization", "adversarial")


def no_meaning(target: str, granularity: str, inference: str, direction: str) -> str | None:
    """Why a cell has no meaning; None where it has one.

    Args:
        target: feature, logit, label or loss.
        granularity: sample, category or corpus.
        inference: prior, hyperparameter, regularization, meta or adversarial.
        direction: positive, negative or mixed.
    """
    corpus = granularity == "corpus"
    if target == "label" and corpus and inference == "regularization":
        return (
            "the price is on Δy itself, and the only Δy that keeps the labels of all classes distributions is 0 [tax 7]"
        )
    if target == "loss" and inference == "adversarial":
        if corpus:
            return "the worst factor, or constant, for every loss at once only changes the learning rate"
        if direction == "mixed":
            return (
                "the weights of a batch keep the mean 1, so that either direction raises some losses and lowers others"
            )
    if target == "loss" and corpus and inference == "regularization" and direction != "positive":
        return "one constant that raises every loss has no gradient, and one factor only changes the learning rate"
    if corpus and direction == "mixed":
        if inference in _SEARCHED:
            return "one perturbation for the whole corpus has one direction; the category level has both, by its split"
        if target == "loss" and inference != "meta":
            return "one number for the whole corpus either raises losses or lowers them"
    return None


def cells() -> Iterator[tuple[str, str, str, str]]:
    """Every (target, granularity, inference, direction), with a meaning or without."""
    return product(TARGETS, GRANULARITIES, INFERENCES, CELL_DIRECTIONS)
