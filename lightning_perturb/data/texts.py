"""Texts that become ids when they are served."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_perturb.data.tokenizers import Tokenizer


class Texts:
    """Texts in the place of the tensor of their ids, ``[N, max_length]`` in int32.

    They are turned into ids when these are first asked for: the vocabulary is that of the training split, which is
    drawn after they are read.

    Args:
        texts: The texts.
        tokenizer: Gives the tokenizer; None before a data module serves them.
    """

    dtype = torch.int32
    ndim = 2

    def __init__(self, texts: Sequence[str], tokenizer: Callable[[], Tokenizer] | None = None) -> None:
        self.texts = texts
        self._tokenizer = tokenizer
        self._encoded: tuple[Tokenizer, Tensor] | None = None

    @property
    def ids(self) -> Tensor:
        """The ids of all texts."""
        tokenizer = self._need_tokenizer()
        if self._encoded is None or self._encoded[0] is not tokenizer:
            self._encoded = tokenizer, tokenizer(self.texts)
        return self._encoded[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of texts and of ids of each."""
        return len(self.texts), self._need_tokenizer().max_length

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, positions: Tensor) -> Tensor:
        return self.ids[positions]

    def index_select(self, dim: int, positions: Tensor) -> Tensor:
        """Ids of the texts at positions."""
        return self.ids.index_select(dim, positions)

    @property
    def served(self) -> bool:
        """Whether a data module serves them."""
        return self._tokenizer is not None

    def served_by(self, tokenizer: Callable[[], Tokenizer]) -> Texts:
        """The same texts, whose ids are those of another tokenizer."""
        return Texts(self.texts, tokenizer)

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RuntimeError("These texts have no tokenizer yet: they are served by no data module.")
        return self._tokenizer()
