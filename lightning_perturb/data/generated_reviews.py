"""Generated film reviews: a stand-in for a corpus of sentiments where nothing can be downloaded."""

from bisect import bisect
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from lightning_perturb.data.labels import Labels
from lightning_perturb.data.text import TextDataModule
from lightning_perturb.data.tokenizers import Tokenizer, WordTokenizer


def _listed(words: str) -> list[str]:
    return words.split()


_GOOD = _listed(
    "good great wonderful fine lovely superb moving clever funny brilliant charming fresh gripping honest elegant "
    "touching witty vivid tender dazzling absorbing graceful inventive radiant sublime luminous poignant sparkling "
    "masterly exquisite riveting beguiling sumptuous stirring winsome artful"
)
_BAD = _listed(
    "bad poor awful dull boring weak terrible silly clumsy tedious stupid lifeless stale pointless dreadful flat "
    "annoying messy bland shallow wooden lazy tiresome hollow dreary lame cheap contrived insipid turgid vapid "
    "ponderous listless grating laborious charmless"
)
_PARTS = _listed(
    "film plot acting story music cast ending script dialogue camera pace humour lead villain setting editing score "
    "opening romance direction"
)
_PEOPLE = ["my friend", "the critics", "my sister", "the audience", "a reviewer", "the man next to me"]
_NEUTRAL = [
    "we watched it on a {day}", "it was made in {year}", "the {part} begins after half an hour",
    "it runs for {year} seconds", "i had read the book before", "on that {day} the cinema was half empty",
    "they shot the {part} in {year}", "my train home left late",
]  # fmt: skip
# by rank, as the frequency of words is
_SHARES = list(accumulate(1 / rank for rank in range(1, min(len(_GOOD), len(_BAD)) + 1)))
_DAYS = _listed("monday tuesday wednesday thursday friday saturday sunday")


class GeneratedReviews(TextDataModule):
    """Film reviews drawn from a small grammar, positive or negative; nothing is downloaded, and nobody wrote them.

    A review has a few statements on parts of a film, in random order. Some praise or blame, with negations that turn
    them round ("not", "hardly", "anything but"), intensifiers that count double ("truly"), and concessions that count
    half ("although ..."); expectations, opinions of others and plain facts count nothing. The label is the sign of the
    sum. Words of praise and blame are as unequally frequent as words are, so that some are hardly seen in training: a
    network learns this well, but not perfectly, and a count of good and bad words learns it badly.

    Everything is drawn from ``draw_seed``, whatever ``seed`` is, so that runs with other seeds compare on the same
    samples.

    Args:
        samples: Training samples, about half of each class.
        test_samples: Test samples, likewise.
        draw_seed: Seed of the samples.
        tokenizer: Turns texts into ids; None takes words, 96 of each text, of up to 1000.
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.TextDataModule`.
    """

    def __init__(
        self,
        samples: int = 4000,
        test_samples: int = 2000,
        draw_seed: int = 1797,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer or WordTokenizer(max_length=96, max_words=1000), batch_size, **kwargs)
        for name, number in (("samples", samples), ("test_samples", test_samples)):
            if number < 4:
                raise ValueError(f"{name}={number!r} leaves a class without a sample. Draw at least 4.")
        self.sizes = {"train": samples, "test": test_samples}
        self.draw_seed = draw_seed

    @property
    def num_classes(self) -> int:
        """Two: 0 is negative, 1 positive."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """negative and positive."""
        return ["negative", "positive"]

    def read_texts(self, split: Literal["train", "val", "test"]) -> tuple[list[str], Labels] | None:
        """Reviews and labels."""
        if split == "val":
            return None
        # one stream for each split: more training samples must not move the test
        generator = np.random.default_rng([self.draw_seed, *split.encode()])
        number = self.sizes[split]
        labels = generator.permutation(np.arange(number) % 2).astype(np.int64)
        return [_review(generator, bool(label)) for label in labels], labels


def _review(generator: np.random.Generator, positive: bool) -> str:
    """A review of that label: reviews are drawn until one has it."""
    while True:
        statements = [_statement(generator) for _ in range(generator.integers(2, 5))]
        total = sum(score for _, score in statements)
        if total and (total > 0) == positive:
            return " . ".join(text for text, _ in statements) + " ."


def _statement(generator: np.random.Generator) -> tuple[str, float]:
    """A statement and what it counts."""
    kind = generator.random()
    if kind < 0.45:
        return _judgement(generator)
    if kind < 0.65:
        (aside, half), (main, score) = _judgement(generator), _judgement(generator)
        return f"although {aside} , {main}", half / 2 + score
    if kind < 0.75:
        expected, _ = _described(generator)
        found, score = _described(generator)
        return f"i expected it to be {expected} but it was {found}", score
    if kind < 0.85:
        said, _ = _described(generator)
        return f"{_one(generator, _PEOPLE)} called the {_one(generator, _PARTS)} {said}", 0.0
    fact = str(_one(generator, _NEUTRAL))
    day, part = _one(generator, _DAYS), _one(generator, _PARTS)
    return fact.format(day=day, part=part, year=generator.integers(1930, 2020)), 0.0


def _judgement(generator: np.random.Generator) -> tuple[str, float]:
    described, score = _described(generator)
    verb = _one(generator, ["is", "was", "seemed", "felt"])
    return f"the {_one(generator, _PARTS)} {verb} {described}", score


def _described(generator: np.random.Generator) -> tuple[str, float]:
    words, score = (_GOOD, 1.0) if generator.random() < 0.5 else (_BAD, -1.0)
    word = words[bisect(_SHARES, generator.random() * _SHARES[-1])]
    if generator.random() < 0.2:
        word, score = f"{_one(generator, ['truly', 'very', 'utterly', 'extremely'])} {word}", 2 * score
    if generator.random() < 0.35:
        return f"{_one(generator, ['not', 'hardly', 'never', 'anything but', 'far from'])} {word}", -score
    return word, score


def _one(generator: np.random.Generator, words: list[str]) -> str:
    return words[int(generator.random() * len(words))]
