"""What the user can mend, and what may pass by itself."""

from __future__ import annotations


class UserError(Exception):
    """Says what happened and where (``str``) and what to do about it (``remedy``).

    The command line shows any exception with a ``remedy`` this way, without a traceback.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class DrawingTimeout(Exception):
    """Poppler took too long, on a machine that may be less busy the next time."""


def may_pass(error: BaseException) -> bool:
    """Whether the machine is to blame for ``error`` and not the file: no memory, a full disk, a slow poppler.

    What the operating system reports carries an ``errno``; what Pillow raises as OSError for a damaged image
    does not.
    """
    return isinstance(error, MemoryError | DrawingTimeout) or (isinstance(error, OSError) and error.errno is not None)
