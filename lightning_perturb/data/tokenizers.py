"""From texts to ids of equal length: by words of the training split, or as a pretrained network was trained."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core.plain import Plain, from_plain
from lightning_perturb.optional import need_transformers

PAD, UNKNOWN = "<pad>", "<unknown>"

# line breaks of reviews that were taken from the web
_BREAKS = re.compile(r"<br\s*/?>")
# "don't" is "do" and "n't", "film's" is "film" and "'s", as in the corpora that word vectors were learned from
_WORDS = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|re|ve|ll|d)\b|\w+|[^\w\s]")


class Tokenizer(Plain, ABC):
    """Turns texts into ids ``[N, max_length]``, cut off or padded at the end.

    It is made of plain data, so that a checkpoint holds it without any code.
    """

    max_length: int
    pad_id: int = 0

    def fitted(self, texts: Iterable[str]) -> "Tokenizer":
        """The tokenizer with what it learns from training texts; itself where it learns nothing."""
        return self

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The words by id, where ids are words."""
        return None

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids of texts, int32 ``[N, max_length]``.

        Raises:
            ValueError: If a text has no words.
        """

    def ids(self, text: str) -> Tensor:
        """Ids of one text ``[1, length]``, without padding."""
        row = self([text])
        return row[:, : int((row != self.pad_id).sum())]


class WordTokenizer(Tokenizer):
    """Words and punctuation marks in lower case, numbered by how frequent they are in the training split.

    Id 0 is padding and id 1 any word that is not in the vocabulary. Of equally frequent words the one that comes first
    in the alphabet has the lower id, so that the same texts always give the same ids.

    Args:
        max_length: Words that are kept of a text, from its beginning.
        min_frequency: Words that occur more rarely in the training split are unknown.
        max_words: Most frequent words that are kept, padding and the unknown word included.
        words: The vocabulary by id, without padding and the unknown word; None learns it from the training split.

    Raises:
        ValueError: If a number is too small, or a word comes twice.
    """

    def __init__(
        self, max_length: int = 256, min_frequency: int = 2, max_words: int = 30000, words: list[str] | None = None
    ) -> None:
        check_positive("max_length", max_length)
        check_positive("min_frequency", min_frequency)
        if max_words < 3:
            raise ValueError(
                f"max_words={max_words} leaves no word beside padding and the unknown one. Give 3 or more."
            )
        self.max_length = max_length
        self.min_frequency = min_frequency
        self.max_words = max_words
        self.words = words
        self._ids = None if words is None else {word: number for number, word in enumerate(words, start=2)}
        if words is not None and self._ids is not None and len(self._ids) < len(words):
            twice = next(word for word, number in Counter(words).items() if number > 1)
            raise ValueError(f"words lists {twice!r} twice. Give each word once.")

    def split(self, text: str) -> list[str]:
        """The words of a text."""
        return _WORDS.findall(_BREAKS.sub(" ", text).lower().replace("’", "'"))

    def fitted(self, texts: Iterable[str]) -> "WordTokenizer":
        """With the vocabulary of training texts; itself where it has one."""
        if self.words is not None:
            return self
        counts = Counter(word for text in texts for word in self.split(text))
        known = [(word, count) for word, count in counts.items() if count >= self.min_frequency]
        known.sort(key=lambda item: (-item[1], item[0]))
        words = [word for word, _ in known[: self.max_words - 2]]
        if not words:
            raise ValueError(
                f"min_frequency={self.min_frequency} leaves no word of the training split. Lower it, or train on more."
            )
        args, kwargs = self.given
        # of the same class: a subclass may split texts another way
        return type(self)(*args, **{**kwargs, "words": words})

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The words by id; None before they are learned."""
        return None if self.words is None else (PAD, UNKNOWN, *self.words)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids of texts, int32 ``[N, max_length]``.

        Raises:
            ValueError: If a text has no words, or there is no vocabulary yet.
        """
        if self._ids is None:
            raise ValueError("This WordTokenizer has no vocabulary yet. Call fitted(texts), or give words=[...].")
        found = np.zeros((len(texts), self.max_length), dtype=np.int32)
        for number, text in enumerate(texts):
            words = self.split(text)[: self.max_length]
            if not words:
                raise ValueError(f"Text {number} of {len(texts)} has no words: {text!r}. Leave it out.")
            found[number, : len(words)] = [self._ids.get(word, 1) for word in words]
        return torch.from_numpy(found)


class TransformersTokenizer(Tokenizer):
    """The tokenizer of a pretrained network, by the library transformers; no code from the files is run.

    Args:
        name: A folder with the tokenizer's files, or a name of the Hugging Face hub, which is fetched once.
        max_length: Tokens that are kept of a text, from its beginning, special ones included.

    Raises:
        ImportError: If transformers is not installed.
        ValueError: If there is no such tokenizer, or it does not pad.
    """

    def __init__(self, name: str = "bert-base-uncased", max_length: int = 512) -> None:
        check_positive("max_length", max_length)
        self.name = name
        self.max_length = max_length
        self._loaded: Any = None

    @property
    def pad_id(self) -> int:  # type: ignore[override]
        """The id of padding."""
        return int(self._tokenizer.pad_token_id)

    @property
    def _tokenizer(self) -> Any:
        if self._loaded is None:
            transformers = need_transformers(type(self).__name__)
            try:
                loaded = transformers.AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"name={self.name!r} is no tokenizer that can be read ({str(error).splitlines()[0]}). Give a "
                    "folder with tokenizer.json or vocab.txt, or a name of the Hugging Face hub and access to it."
                ) from error
            if loaded.pad_token_id is None:
                raise ValueError(f"name={self.name!r} has no padding token. Choose a tokenizer of an encoder.")
            loaded.padding_side = "right"
            self._loaded = loaded
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        """Without what is read from the files."""
        return {**self.__dict__, "_loaded": None}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids of texts, int32 ``[N, max_length]``.

        Raises:
            ValueError: If a text is empty.
        """
        for number, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"Text {number} of {len(texts)} has no words: {text!r}. Leave it out.")
        options = {"padding": "max_length", "truncation": True, "max_length": self.max_length}
        rows = [
            np.asarray(self._tokenizer(list(texts[first : first + 1024]), **options)["input_ids"], dtype=np.int32)
            for first in range(0, len(texts), 1024)
        ]
        return torch.from_numpy(np.concatenate(rows or [np.zeros((0, self.max_length), dtype=np.int32)]))


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that a checkpoint's network was trained with, with its vocabulary; no code from the file is run.

    ``load(path)(load_tokenizer(path)(["What a film!"]))`` are the logits of a text.

    Args:
        path: The ``.ckpt`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the checkpoint holds none, as where it was not trained on texts.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file. Give the .ckpt file that training wrote.")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    for value in checkpoint.values():
        if isinstance(value, dict) and "tokenizer" in value:
            found = from_plain(value["tokenizer"])
            if isinstance(found, Tokenizer):
                return found
    raise ValueError(f"path={str(path)!r} holds no tokenizer: it was not trained on texts of a TextDataModule.")
