"""CivilComments: comments that are toxic or not, and the people that they speak of."""

import math
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_perturb.checks import check_choice
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.text import TextDataModule
from lightning_perturb.data.text_table import read_table
from lightning_perturb.data.tokenizers import Tokenizer, WordTokenizer

IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")


class _Part(NamedTuple):
    """Comments, classes, and which identities they mention ``[N, 8]``."""

    texts: list[str]
    labels: Labels
    members: npt.NDArray[np.bool_]


class CivilComments(TextDataModule):
    """CivilComments (Borkan et al., 2019) as WILDS splits it: 269 038, 45 180 and 133 782 comments.

    A comment is toxic where at least half of its raters say so, and mentions an identity likewise. Training has one
    domain, whether ``domain`` is mentioned, as published for methods that look at groups; evaluation has the eight
    identities as domains, several of which a comment may mention. The published worst accuracy is that of the worst of
    their sixteen groups.

    Args:
        root: Folder with ``all_data_with_identities.csv``.
        domain: The identity whose mention is the domain of training.
        tokenizer: Turns texts into ids; None takes words, 300 of each comment, of up to 30 000.
        **kwargs: Arguments of :class:`~lightning_perturb.data.TextDataModule`.

    Raises:
        FileNotFoundError: In setup, if there is no such file.
        ValueError: If ``domain`` is no identity; in setup, if the file is of another layout.
    """

    #: comments of each split
    published: ClassVar[dict[str, int]] = {"train": 269_038, "val": 45_180, "test": 133_782}

    def __init__(
        self,
        root: str = "data/civilcomments_v1.0",
        domain: Literal[
            "male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white"
        ] = "black",
        tokenizer: Tokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer or WordTokenizer(max_length=300), **kwargs)
        check_choice("domain", domain, IDENTITIES)
        self.root = root
        self.domain = domain
        self._parts: dict[str, _Part] | None = None

    @property
    def num_classes(self) -> int:
        """Two."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """non-toxic and toxic."""
        return ["non-toxic", "toxic"]

    @property
    def domain_names(self) -> list[str]:
        """Without and with a mention."""
        return [f"not {self.domain}", self.domain]

    @property
    def evaluation_domain_names(self) -> list[str]:
        """The eight identities."""
        return list(IDENTITIES)

    def read_texts(self, split: Literal["train", "val", "test"]) -> tuple[list[str], Labels]:
        """Comments and classes."""
        part = self._part(split)
        return part.texts, part.labels

    def read_domains(self, split: Literal["train", "val", "test"]) -> Labels:
        """Whether the domain of training is mentioned ``[N]``."""
        return self._part(split).members[:, IDENTITIES.index(self.domain)].astype(np.int64)

    def evaluation_domains(self, split: Literal["train", "val", "test"]) -> npt.NDArray[np.bool_]:
        """Which identities are mentioned ``[N, 8]``."""
        return self._part(split).members

    def _part(self, split: str) -> _Part:
        if self._parts is None:
            self._parts = self._read()
        return self._parts[split]

    def _read(self) -> dict[str, _Part]:
        path = Path(self.root) / "all_data_with_identities.csv"
        if not path.is_file():
            raise FileNotFoundError(
                f"root={self.root!r}: {path} does not exist. Download CivilComments of WILDS (wilds.stanford.edu) and "
                "give the folder of that file."
            )
        texts: dict[str, list[str]] = {name: [] for name in self.published}
        numbers: dict[str, list[list[bool]]] = {name: [] for name in self.published}
        columns = ("toxicity", *IDENTITIES)
        for row, place in read_table("root", path):
            missing = [name for name in ("comment_text", "split", *columns) if name not in row]
            if missing:
                raise ValueError(f"{place}: there is no column {missing[0]!r}. Give the file as WILDS publishes it.")
            if row["split"] not in texts:
                raise ValueError(f"{place}: split is {row['split']!r}, not train, val or test.")
            # of a comment without a word the class is all that is known
            texts[row["split"]].append(row["comment_text"] if row["comment_text"].strip() else ".")
            numbers[row["split"]].append([_share(row[name], name, place) >= 0.5 for name in columns])
        for name, published in self.published.items():
            if not texts[name]:
                raise ValueError(f"{path} has no comments of the split {name!r}. It may be cut off.")
            if len(texts[name]) != published:
                warnings.warn(
                    f"{path} has {len(texts[name])} comments of the split {name!r}, not the published {published}.",
                    stacklevel=2,
                )
        marks = {name: np.array(rows, dtype=np.bool_) for name, rows in numbers.items()}
        return {name: _Part(texts[name], marks[name][:, 0].astype(np.int64), marks[name][:, 1:]) for name in texts}


def _share(cell: str, name: str, place: str) -> float:
    # identities of some comments were not rated
    if not cell.strip() and name != "toxicity":
        return 0.0
    try:
        share = float(cell)
    except ValueError:
        share = math.nan
    if name == "toxicity" and math.isnan(share):
        raise ValueError(f"{place}: {name} is {cell!r}, which is no share of raters.")
    return share
