"""A mistake that the user can mend (the command line shows any exception with a ``remedy`` this way)."""

from __future__ import annotations


class UserError(Exception):
    """Says what happened and where (``str``) and what to do about it (``remedy``); no traceback."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
