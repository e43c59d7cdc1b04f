"""What Parquet says of a file that cannot be read, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pdf2txt.errors import UserError


@contextmanager
def damage_told(path: Path, remedy: str, what: str = "") -> Iterator[None]:
    """While a Parquet file is read.

    Args:
        what: the file is, before its name.

    Raises:
        UserError: it is something else, or damaged.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{what} {path} is not Parquet, or damaged ({error})".strip(), remedy) from error
