"""Numbers that an answer gives in digits."""

from __future__ import annotations

import re

# 1,234,567.5 as well as 1234567.5; the comma of a list ("3,4") and the full stop of a sentence are no part of a number.
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d)|(?<![\w.])-?\.\d+|\d+(?:\.\d+)?")


def numbers(text: str) -> list[float]:
    """All numbers in the order in which they stand."""
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def first_number_is(output: str, expected: str | float) -> float:
    """1 where the first number of ``output`` is ``expected``."""
    return float(numbers(output)[:1] == numbers(str(expected))[-1:] != [])


def last_number_is(output: str, expected: str | float) -> float:
    """1 where the last number of ``output`` is the last of ``expected``, as for worked solutions of exercises."""
    return float(numbers(output)[-1:] == numbers(str(expected))[-1:] != [])
