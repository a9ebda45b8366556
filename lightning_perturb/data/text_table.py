"""Your own texts: tables with a column of texts and a column of labels."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from lightning_perturb.checks import check_positive
from lightning_perturb.data.base import hold_out
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.text import TextDataModule

_NUMBER = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+[eE][-+]?\d+|\d+\.?\d*[eE][-+]?\d+|nan|inf)", re.IGNORECASE)


class TextTable(TextDataModule):
    """Texts and labels in tables: ``.csv`` and ``.tsv`` files with a header, or ``.jsonl`` with an object on each line.

    Classes are the labels of the training table: whole numbers in their order, or names in alphabetical order.

    Args:
        train: The table of training samples.
        test: The table of test samples, or None to keep ``test_size`` of the training samples.
        val: The table of validation samples, or None, where ``val_size`` can carve them.
        text: Name of the column of texts.
        label: Name of the column of labels.
        test_size: Share or count of samples kept for the test where no table is given; 0 for no test split.
        **kwargs: Arguments of :class:`~lightning_perturb.data.TextDataModule`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a label is no class, or the training table has one class alone.
    """

    def __init__(
        self,
        train: str,
        test: str | None = None,
        val: str | None = None,
        text: str = "text",
        label: str = "label",
        test_size: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive("test_size", test_size, zero=True)
        if test is not None and test_size:
            raise ValueError(f"test_size={test_size} and test={test!r} contradict each other. Give one of them.")
        self.tables = {"train": train, "test": test, "val": val}
        self.text = text
        self.label = label
        self.test_size = test_size
        self._train_table: tuple[list[str], Labels] | None = None
        self._names: list[str] = []

    @property
    def num_classes(self) -> int:
        """Number of labels in the training table, which is read for it."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """The labels of the training table."""
        self._training()
        return self._names

    def read_texts(self, split: Literal["train", "val", "test"]) -> tuple[list[str], Labels] | None:
        """The rows of a table; with ``test_size`` the same samples are the test for every ``seed``."""
        table = self.tables[split]
        if split != "train" and table is not None:
            return self._read(split, table)
        if split == "val" or (split == "test" and not self.test_size):
            return None
        texts, labels = self._training()
        if not self.test_size:
            return texts, labels
        kept, held = hold_out("test_size", labels, self.num_classes, self.test_size, np.random.default_rng(1797))
        chosen = kept if split == "train" else held
        return [texts[i] for i in chosen.tolist()], labels[chosen]

    def _training(self) -> tuple[list[str], Labels]:
        if self._train_table is None:
            table = self.tables["train"]
            assert table is not None
            found = sorted({label for _, label, _ in self._rows("train", table)}, key=_order)
            if len(found) < 2:
                raise ValueError(
                    f"{table}: the column {self.label!r} has one class alone ({', '.join(found) or 'no row'}). Give a "
                    "table with at least two."
                )
            self._names = found
            self._train_table = self._read("train", table)
        return self._train_table

    def _read(self, split: str, table: str) -> tuple[list[str], Labels]:
        ids = {name: number for number, name in enumerate(self.class_names if split != "train" else self._names)}
        texts, labels = [], []
        for text, label, place in self._rows(split, table):
            if label not in ids:
                raise ValueError(
                    f"{place}: the label {label!r} is none of the training table's: {', '.join(ids)}. Remove the row, "
                    "or correct it."
                )
            texts.append(text)
            labels.append(ids[label])
        return texts, np.array(labels, dtype=np.int64)

    def _rows(self, name: str, table: str) -> Iterator[tuple[str, str, str]]:
        """Text, label and place of each row."""
        for row, place in read_table(name, table):
            for column in (self.text, self.label):
                if column not in row:
                    known = ", ".join(str(key) for key in row)
                    argument = "text" if column == self.text else "label"
                    raise ValueError(
                        f"{place}: there is no column {column!r}; the columns are {known}. Name it by {argument}."
                    )
            text, label = row[self.text], row[self.label]
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{place}: the text is empty, or no text. Remove the row.")
            yield text, _label(label, place), place


def read_table(name: str, path: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of a table by column, each with its place for messages.

    Args:
        name: Name of the argument that gave the path.
        path: A ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has another ending, or a row does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}={str(path)!r} is not a file. Give a .csv, .tsv or .jsonl file.")
    if path.suffix not in (".csv", ".tsv", ".jsonl"):
        raise ValueError(f"{name}={str(path)!r} has an unknown ending. Give a .csv, .tsv or .jsonl file.")
    # utf-8-sig: spreadsheets put a mark in front
    with path.open(encoding="utf-8-sig", newline="" if path.suffix != ".jsonl" else None) as file:
        try:
            yield from _objects(file, path) if path.suffix == ".jsonl" else _fields(file, path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 ({error}). Save it as UTF-8.") from error


def _objects(file: TextIO, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield _object(line, f"{path}, line {number}"), f"{path}, line {number}"


def _fields(file: TextIO, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    # texts may be longer than the reader's usual limit; C's long has 32 bits on some systems
    csv.field_size_limit(2**31 - 1)
    # strict: a quotation mark that nobody closes would make one text of all rows behind it
    reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(
                    f"{place}: the row has another number of fields than the header. Put texts that hold commas, tabs "
                    "or line breaks into quotation marks."
                )
            yield row, place
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num + 1}: {error}. Put a text that begins with a quotation mark into quotation "
            'marks, and write those in it twice ("").'
        ) from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no JSON ({error}). Write one object on each line.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no object but {type(row).__name__}. Write one object on each line.")
    return row


def _label(label: Any, place: str) -> str:
    whole = isinstance(label, int) and not isinstance(label, bool)
    if not whole and (not isinstance(label, str) or not label.strip() or _NUMBER.fullmatch(label.strip())):
        raise ValueError(
            f"{place}: the label {label!r} is no class. Give whole numbers or names; of scores make classes first."
        )
    return str(label).strip()


def _order(label: str) -> tuple[int, int, str]:
    # numbers before names, and by their size
    number = label.removeprefix("-")
    return (0, int(label), "") if number.isdecimal() else (1, 0, label)
