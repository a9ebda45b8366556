"""The taxonomy of learning with perturbation as data [tax section 4, Table 1]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

TARGETS = ("feature", "logit", "label", "loss")
DIRECTIONS = ("positive", "negative")
INFERENCES = ("prior", "hyperparameter", "regularization", "meta", "adversarial")
GRANULARITIES = ("sample", "category", "corpus")

_LEGAL = {"target": TARGETS, "direction": DIRECTIONS, "inference": INFERENCES, "granularity": GRANULARITIES}


def _tuple(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Coordinates:
    """Where a method stands in the taxonomy; several values where it mixes, none for the plain loss.

    Attributes:
        target: What is perturbed: feature, logit, label or loss [tax 4-8].
        direction: positive lowers the loss of a sample, negative raises it.
        inference: How the perturbation is found: prior knowledge, hyperparameter tuning, regularization,
            meta learning or adversarial learning.
        granularity: Who shares one perturbation: a sample, a category or the corpus.
    """

    target: tuple[str, ...] = ()
    direction: tuple[str, ...] = ()
    inference: tuple[str, ...] = ()
    granularity: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            for value in getattr(self, item.name):
                if value not in _LEGAL[item.name]:
                    raise ValueError(f"{item.name}={value!r} is not in the taxonomy: {', '.join(_LEGAL[item.name])}.")

    @classmethod
    def of(
        cls,
        target: str | Iterable[str],
        direction: str | Iterable[str],
        inference: str | Iterable[str],
        granularity: str | Iterable[str],
    ) -> Coordinates:
        """Coordinates from single words or several."""
        return cls(_tuple(target), _tuple(direction), _tuple(inference), _tuple(granularity))

    def __str__(self) -> str:
        return " x ".join("+".join(getattr(self, item.name)) or "-" for item in fields(self))
