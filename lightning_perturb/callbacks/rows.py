"""A table on disk that grows by one row an epoch and is a plain ``.npy`` file at any time."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# fixed, so that the row count in it can be rewritten in place while the file grows
_HEADER_BYTES = 128


def read_rows(path: Path) -> npt.NDArray[Any]:
    """The table as a read-only memory map ``[rows, columns]``."""
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def write_row(path: Path, row: int, values: npt.NDArray[Any], fill: float) -> None:
    """Writes one row, over an older one or behind the last.

    Args:
        path: The file; made where there is none.
        row: Number of the row. Rows between the last one and this one are filled.
        values: The row ``[columns]``. A file with fewer columns is widened, a shorter row is filled up.
        fill: Stands where nothing was written.
    """
    rows, columns = read_rows(path).shape if path.exists() else (0, len(values))
    if rows and columns < len(values):
        wider = _filled(rows, len(values), fill, values.dtype)
        wider[:, :columns] = read_rows(path)
        _replace(path, wider)
    columns = max(columns, len(values))
    line = _filled(1, columns, fill, values.dtype)
    line[0, : len(values)] = values
    with path.open("r+b" if rows else "wb") as file:
        file.seek(_HEADER_BYTES + min(row, rows) * line.nbytes)
        for _ in range(row - rows):
            file.write(_filled(1, columns, fill, values.dtype).tobytes())
        file.write(line.tobytes())
        # last: a process killed before leaves a file without the row, not one with a broken row
        file.seek(0)
        file.write(_header(max(rows, row + 1), columns, values.dtype))


def copy_rows(source: Path, target: Path, rows: int) -> None:
    """Copies the first rows of a file, or fewer where it has fewer; source and target may be the same.

    Args:
        source: The file to read; where there is none, the target is removed.
        target: The file to write.
        rows: How many rows; 0 removes the target.
    """
    stored = read_rows(source) if source.exists() else np.empty((0, 0))
    if source == target and len(stored) <= rows:
        return
    kept = stored[:rows]
    if len(kept):
        _replace(target, kept)
    else:
        target.unlink(missing_ok=True)


def _filled(rows: int, columns: int, fill: float, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # '<': a file means the same on every machine
    return np.full((rows, columns), fill, dtype=dtype.newbyteorder("<"))


def _replace(path: Path, table: npt.NDArray[Any]) -> None:
    # written beside and moved: the old file may be the one that is read
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(_header(len(table), table.shape[1], table.dtype))
        for line in table:
            file.write(np.ascontiguousarray(line).tobytes())
    os.replace(draft, path)


def _header(rows: int, columns: int, dtype: np.dtype[Any]) -> bytes:
    """Version 1.0 of NumPy's format, padded to a fixed length."""
    kind = dtype.newbyteorder("<").str
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    length = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.ljust(length - 1).encode("latin1") + b"\n"
