"""IMDB: 50 000 film reviews, half of them positive."""

import re
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_perturb.checks import check_positive
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.text import TextDataModule
from lightning_perturb.data.tokenizers import Tokenizer, WordTokenizer

_FOLDERS = ("neg", "pos")
_FILE = re.compile(r"(\d+)_\d+\.txt")


class IMDB(TextDataModule):
    """IMDB's large movie review data set (Maas et al. 2011), split 4:1:5 as in [tax section 6.3].

    Of the 25 000 reviews of ``train/`` the last 5000 are for validation, with true labels; the 25 000 of ``test/`` are
    the test. The order is that of the numbers in the files' names, a negative and a positive review in turns, so that
    the first share of the samples has as many of both classes. (The paper flips the first samples "according to their
    indexes in the corpus" and does not say in which order its copy of the corpus is; in the order of the folders its
    symmetric noise would be the asymmetric one.)

    Args:
        root: Folder with ``aclImdb/{train,test}/{neg,pos}/*.txt``, the archive ``aclImdb_v1.tar.gz`` unpacked.
        validation: Reviews at the end of the training set that are for validation; 0 for none, where ``val_size`` can
            carve them.
        tokenizer: Turns texts into ids; None takes words, 400 of each review, of up to 30 000.
        **kwargs: Arguments of :class:`~lightning_perturb.data.TextDataModule`.

    Raises:
        FileNotFoundError: In setup, if a folder is missing.
        ValueError: In setup, if ``validation`` leaves no training sample, or a file has another name.
    """

    #: reviews in each of the four folders
    published: ClassVar[int] = 12_500

    def __init__(
        self, root: str = "data", validation: int = 5000, tokenizer: Tokenizer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(tokenizer or WordTokenizer(max_length=400), **kwargs)
        check_positive("validation", validation, zero=True)
        self.root = root
        self.validation = validation
        self._training: tuple[list[str], Labels] | None = None

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
        if split == "test":
            return self._read("test")
        if split == "val" and not self.validation:
            return None
        if self._training is None:
            self._training = self._read("train")
        texts, labels = self._training
        end = len(texts) - self.validation
        if end < 2:
            raise ValueError(
                f"validation={self.validation} leaves no training sample of the {len(texts)} of train/. Lower it."
            )
        if split == "train":
            return texts[:end], labels[:end]
        # the last of the three that reads them
        self._training = None
        return texts[end:], labels[end:]

    def _read(self, folder: str) -> tuple[list[str], Labels]:
        found: list[tuple[int, int, Path]] = []
        for label, name in enumerate(_FOLDERS):
            path = Path(self.root) / "aclImdb" / folder / name
            if not path.is_dir():
                raise FileNotFoundError(
                    f"root={self.root!r}: {path} does not exist. Unpack aclImdb_v1.tar.gz "
                    "(ai.stanford.edu/~amaas/data/sentiment) into root."
                )
            files = sorted(path.glob("*.txt"))
            if len(files) != self.published:
                warnings.warn(
                    f"{path} has {len(files)} reviews, not the published {self.published}: the archive may not be "
                    "fully unpacked.",
                    stacklevel=2,
                )
            for file in files:
                match = _FILE.fullmatch(file.name)
                if match is None:
                    raise ValueError(f"{file} is not named <number>_<rating>.txt, as IMDB's reviews are. Remove it.")
                found.append((int(match[1]), label, file))
        found.sort()
        texts = [file.read_text(encoding="utf-8") for *_, file in found]
        return texts, np.array([label for _, label, _ in found], dtype=np.int64)
