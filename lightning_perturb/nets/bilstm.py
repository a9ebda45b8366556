"""A bidirectional LSTM with attention over words, and vectors of words from a file."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive, check_rate


class BiLSTMAttention(nn.Module):
    """Words, an LSTM in each direction, attention over the words, and a linear classifier [tax section 6.3].

    Padding does not change anything: the backward LSTM begins at each text's last word, and the attention leaves
    padding out. With h_t the outputs of both LSTMs at word t, the weights are softmax_t(a · tanh(h_t)) and the features
    are tanh of the weighted sum.

    Args:
        num_classes: number of classes.
        vocab_size: rows of the embedding, at least as many as the vocabulary has words (``max_words`` of the
            tokenizer).
        embedding_dim: width of the embedding.
        hidden: width of each LSTM.
        dropout: rate of the dropout on embedded words, from 0 to 1.
        vectors: text file of word vectors, a word and ``embedding_dim`` numbers a line, such as ``glove.6B.300d.txt``;
            words that it lacks, and all where it is None, begin at random.
        pad_id: id of padding, which stands at the end of a text.

    Raises:
        ValueError: if a number is out of its range; in the forward, if ids are no whole numbers ``[B, L]`` below
            ``vocab_size``.
    """

    #: which vocabulary the embedding has learned; 0 before it has one
    vocabulary_hash: Tensor

    def __init__(
        self,
        num_classes: int,
        vocab_size: int = 30000,
        embedding_dim: int = 300,
        hidden: int = 100,
        dropout: float = 0.5,
        vectors: str | None = None,
        pad_id: int = 0,
    ) -> None:
        check_positive("num_classes", num_classes)
        check_positive("vocab_size", vocab_size)
        check_positive("embedding_dim", embedding_dim)
        check_positive("hidden", hidden)
        check_rate("dropout", dropout)
        if not 0 <= pad_id < vocab_size:
            raise ValueError(f"pad_id={pad_id} is outside 0..{vocab_size - 1} for vocab_size={vocab_size}.")
        super().__init__()
        self.pad_id = pad_id
        self.vectors = vectors
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=pad_id)
        # the spread of GloVe's numbers: words with a vector and words without are of one scale
        nn.init.normal_(self.embedding.weight, std=0.4)
        with torch.no_grad():
            self.embedding.weight[pad_id].zero_()
        self.dropout = nn.Dropout(dropout)
        self.forward_lstm = nn.LSTM(embedding_dim, hidden, batch_first=True)
        self.backward_lstm = nn.LSTM(embedding_dim, hidden, batch_first=True)
        self.attention = nn.Linear(2 * hidden, 1, bias=False)
        self.classifier = nn.Linear(2 * hidden, num_classes)
        self.register_buffer("vocabulary_hash", torch.zeros((), dtype=torch.int64))

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids ``[B, L]``, padded at the end, to logits ``[B, num_classes]``."""
        self._check(ids)
        words = ids != self.pad_id
        # [B, L]: each text from its last word to its first; padding stays where it is
        place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        turned = torch.where(words, words.sum(1, keepdim=True) - 1 - place, place).unsqueeze(2)
        x = self.dropout(self.embedding(ids))
        onward, _ = self.forward_lstm(x)
        back, _ = self.backward_lstm(x.gather(1, turned.expand_as(x)))
        h = torch.cat([onward, back.gather(1, turned.expand_as(back))], 2)
        score = self.attention(h.tanh()).squeeze(2)
        # the smallest number and not -inf: a text of padding alone must not give NaN
        weight = score.masked_fill(~words, torch.finfo(score.dtype).min).softmax(1)
        logits: Tensor = self.classifier((weight.unsqueeze(2) * h).sum(1).tanh())
        return logits

    def take_vocabulary(self, words: tuple[str, ...]) -> None:
        """Takes the words that ids stand for, once, and their vectors where there is a file of them.

        Raises:
            ValueError: If the embedding has too few rows, or has learned other words before.
        """
        if len(words) > self.embedding.num_embeddings:
            raise ValueError(
                f"vocab_size={self.embedding.num_embeddings} of {type(self).__name__} is less than the {len(words)} "
                "words of the data's vocabulary. Raise it, or lower max_words of the tokenizer."
            )
        self.check_vocabulary(words)
        if int(self.vocabulary_hash) == 0 and self.vectors is not None:
            found, rows = read_vectors(self.vectors, words, self.embedding.embedding_dim)
            weight = self.embedding.weight
            with torch.no_grad():
                weight[torch.from_numpy(found)] = torch.from_numpy(rows).to(weight)
        self.vocabulary_hash.fill_(_hash(words))

    def check_vocabulary(self, words: tuple[str, ...]) -> None:
        """Compares the words that ids stand for with those that the embedding has learned, if any.

        Raises:
            ValueError: If they are others.
        """
        if int(self.vocabulary_hash) not in (0, _hash(words)):
            raise ValueError(
                f"This {type(self).__name__} was trained with another vocabulary than that of the data. Give the data "
                "the tokenizer that it was trained with (lightning_perturb.data.load_tokenizer), or evaluation its "
                "checkpoint as ckpt_path, or train a new network."
            )

    def _check(self, ids: Tensor) -> None:
        if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex():
            raise ValueError(
                f"{type(self).__name__} takes ids [B, L] of words, but the input is {ids.dtype} of shape "
                f"{tuple(ids.shape)}. Use text data, such as IMDB or GeneratedReviews; to perturb embedded words, set "
                "perturb_at to embeddings."
            )
        # on a GPU a look would make the host wait
        if ids.device.type == "cpu" and ids.numel() and int(ids.max()) >= self.embedding.num_embeddings:
            raise ValueError(
                f"vocab_size={self.embedding.num_embeddings} of {type(self).__name__} has no row for the id "
                f"{int(ids.max())}. Raise it to at least max_words of the tokenizer."
            )


def _hash(words: tuple[str, ...]) -> int:
    """A number of a vocabulary, never 0."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:7], "big") + 1


def read_vectors(
    path: str | Path, words: tuple[str, ...], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Reads the vectors of words from a text file, a word and its numbers a line (GloVe, word2vec, fastText).

    Args:
        path: the file.
        words: the words to look for.
        width: numbers of a vector.

    Returns:
        Which of the words were found ``[n]``, in the file's order, and their vectors ``[n, width]``. Of a word that the
        file has twice, the first counts.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line has another number of values, a value is no number, or no word is found.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"vectors={str(path)!r} is not a file. Download glove.6B.zip from nlp.stanford.edu/projects/glove, unpack "
            "it and give its glove.6B.300d.txt."
        )
    wanted = {word: number for number, word in enumerate(words)}
    found: list[int] = []
    rows: list[npt.NDArray[np.float32]] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            # from the right: some files have words with spaces
            word, *values = line.rstrip().rsplit(" ", width)
            if number == 1 and len(line.split()) == 2:
                # word2vec and fastText begin with the number of words and their width
                continue
            if len(values) != width or " " in values[:1]:
                raise ValueError(
                    f"Line {number} of {path} has {len(line.split()) - 1} numbers where embedding_dim={width} are "
                    "needed. Set embedding_dim to the width of the file, or give another file."
                )
            position = wanted.pop(word, None)
            if position is None:
                continue
            try:
                rows.append(np.array(values, dtype=np.float32))
            except ValueError as error:
                raise ValueError(f"Line {number} of {path} is no word and {width} numbers: {error}.") from error
            found.append(position)
    if not found:
        raise ValueError(f"vectors={str(path)!r} has none of the {len(words)} words. Give a file of the same language.")
    return np.array(found, dtype=np.int64), np.stack(rows)
