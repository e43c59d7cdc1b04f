"""What a teacher's reply says: the JSON object in it, whatever stands around."""

from __future__ import annotations

import json
import re
from typing import Any

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_DECODER = json.JSONDecoder(strict=False)  # raw line breaks within strings pass


class Junk(ValueError):
    """A reply that is not what was asked for; says why."""


def parse_object(text: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The last JSON object in ``text`` that has all ``keys``.

    Lenient about what models do around it: thinking, a code fence, a greeting, an example before it, line
    breaks within strings, a comma before the closing bracket.

    Raises:
        Junk: there is none.
    """
    text = _THINKING.sub("", text)
    for candidate in (text, re.sub(r",(\s*[}\]])", r"\1", text)):
        found = [o for o in _objects(candidate) if all(key in o for key in keys)]
        if found:
            return found[-1]
    raise Junk("no JSON object with " + ", ".join(keys))


def _objects(text: str) -> list[dict[str, Any]]:
    found = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def string(value: Any, key: str, most_words: int) -> str:
    """A non-empty text of at most ``most_words`` words.

    Raises:
        Junk: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise Junk(f"{key} is no text")
    if len(value.split()) > most_words:
        raise Junk(f"{key} has {len(value.split())} words")
    return value.strip()


def truth(value: Any, key: str) -> bool:
    """A yes or no, also where a model wrote it as a word.

    Raises:
        Junk: it is neither.
    """
    word = str(value).strip().casefold()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise Junk(f"{key} is neither true nor false")


def strings(value: Any, key: str) -> tuple[str, ...]:
    """A list of texts; a single text counts as a list of one, empty ones are left out.

    Raises:
        Junk: it is something else.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise Junk(f"{key} is no list of texts")
    return tuple(item.strip() for item in items if item.strip())
