"""A folder for what is on its way, which outlives an interruption and is taken up by the next try."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pdf2txt.errors import UserError

_PREFIX = ".pdf2txt-"


@contextlib.contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A folder in ``out``, gone afterwards; where the work is interrupted it stays, and the next call goes on with it.

    A living process holds a lock on a file in its own.
    """
    mine: tuple[Path, IO[bytes]] | None = None
    for left in sorted(out.glob(f"{_PREFIX}*")):
        if (lock := _locked(left)) is None:
            continue
        if mine is None:
            mine = left, lock
        else:
            shutil.rmtree(left, ignore_errors=True)
            lock.close()
    while mine is None:
        work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=out))
        if (lock := _locked(work)) is not None:  # else another process took it for a leftover before
            mine = work, lock
    work, lock = mine
    with lock:
        try:
            yield work
        except UserError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


def _locked(folder: Path) -> IO[bytes] | None:
    """The lock of a folder, taken; None where a living process has it, or the folder is gone."""
    try:
        lock = (folder / "lock").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat()):
            return lock
        lock.close()
    except OSError:
        pass
    return None
