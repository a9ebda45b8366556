"""Writes generated text into the READMEs, between markers."""

from __future__ import annotations

import os
from pathlib import Path

README = Path(__file__).parent / "README.md"
FRONT = Path(__file__).parents[1] / "README.md"


def has_section(name: str, path: Path) -> bool:
    """Whether a file has the markers of a section."""
    return path.is_file() and f"<!-- begin: {name} -->" in path.read_text(encoding="utf-8")


def write_section(name: str, text: str, path: Path = README) -> None:
    """Replaces what stands between ``<!-- begin: name -->`` and ``<!-- end: name -->``.

    Raises:
        ValueError: If the markers are missing.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    whole = path.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no place for this table. Add the two lines {begin} and {end} where it belongs.")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
    os.replace(draft, path)
