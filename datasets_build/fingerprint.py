"""What identifies a document's text and layout, taken from its columns without making objects of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_LAYOUT = ("pages", "blocks", "paragraphs")
_Leaf = tuple[list[str] | np.ndarray, list[int]]  # values, and where those of each document end (with a 0 before)


def content_digest(row: pa.Table) -> str:
    """sha256 over the file's sha256, the text and the layout of a document (not over its name).

    Args:
        row: a table of one row in the schema of ``documents.parquet``.
    """
    return next(content_digests(row))


def content_digests(table: pa.Table) -> Iterator[str]:
    """The ``content_digest`` of each row of ``documents.parquet``; what is nested is taken apart once for all."""
    columns = {name: table[name].combine_chunks() for name in _LAYOUT}
    ends = {name: _ends(column, np.arange(len(table) + 1)) for name, column in columns.items()}
    leaves = {name: list(_leaves(column.flatten(), ends[name])) for name, column in columns.items()}
    for row, (sha256, text) in enumerate(zip(table["sha256"], table["text"], strict=True)):
        total = hashlib.sha256(sha256.as_py().encode())
        total.update(text.as_buffer())
        for name in _LAYOUT:
            entries = int(ends[name][row + 1] - ends[name][row])
            total.update(f"\0{name} {entries}\0".encode())
            for values, places in leaves[name] if entries else ():
                part = values[places[row] : places[row + 1]]
                data = "\0".join(part).encode() if isinstance(part, list) else part.tobytes()
                total.update(f"\0{name} {len(data)}\0".encode())
                total.update(data)
        yield total.hexdigest()


def _leaves(array: pa.Array, ends: np.ndarray) -> Iterator[_Leaf]:
    """The columns of numbers and strings that a nested column is stored as.

    Args:
        ends: where the entries of each document end in ``array``, with a 0 before.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _leaves(child, ends)
    elif pa.types.is_fixed_size_list(kind):
        yield from _leaves(array.flatten(), ends * kind.list_size)
    elif pa.types.is_list(kind):
        yield pc.list_value_length(array).to_numpy(zero_copy_only=False), ends.tolist()
        yield from _leaves(array.flatten(), _ends(array, ends))
    elif pa.types.is_string(kind):
        yield array.to_pylist(), ends.tolist()
    else:
        yield array.to_numpy(zero_copy_only=False), ends.tolist()


def _ends(lists: pa.Array, ends: np.ndarray) -> np.ndarray:
    """Where the documents end among the values of lists, of which they end at ``ends``."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[ends]
