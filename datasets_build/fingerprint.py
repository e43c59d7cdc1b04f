"""What identifies a document's text and layout, taken from its columns without making objects of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_LAYOUT = ("pages", "blocks", "paragraphs")


def content_digest(row: pa.Table) -> str:
    """sha256 over the file's sha256, the text and the layout of a document (not over its name).

    Args:
        row: a table of one row in the schema of ``documents.parquet``.
    """
    total = hashlib.sha256(row["sha256"][0].as_py().encode())
    total.update(row["text"][0].as_buffer())
    for name in _LAYOUT:
        entries = row[name].combine_chunks().flatten()
        total.update(f"\0{name} {len(entries)}\0".encode())
        for data in _leaves(entries) if len(entries) else ():
            total.update(f"\0{name} {len(data)}\0".encode())
            total.update(data)
    return total.hexdigest()


def _leaves(array: pa.Array) -> Iterator[bytes]:
    """The columns of numbers and strings that a nested column is stored as."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _leaves(child)
    elif pa.types.is_fixed_size_list(kind):
        yield from _leaves(array.flatten())
    elif pa.types.is_list(kind):
        yield from _leaves(pc.list_value_length(array))
        yield from _leaves(array.flatten())
    elif pa.types.is_string(kind):
        yield "\0".join(array.to_pylist()).encode()
    else:
        yield array.to_numpy(zero_copy_only=False).tobytes()
