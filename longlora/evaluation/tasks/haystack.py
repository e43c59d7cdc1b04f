"""Prompts of a given length with something planted in them: filler, where things stand in it, and fitting."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from longlora.errors import UserError

FILLER = (
    "The harbour is quiet in the morning.",
    "A boat leaves and another one comes back.",
    "The wind turns a little to the west.",
    "Bread is baked in the street behind the church.",
    "Someone opens a window and closes it again.",
    "The clouds move slowly over the hills.",
    "Two children count the gulls on the pier.",
    "The road bends twice before it meets the river.",
    "Old ropes lie drying in the sun.",
    "At noon the bell is heard across the water.",
)
PADDING = "again"  # one short word, repeated where sentences are too coarse to meet a length
TOLERANCE = 0.01


def planted(sentences: Sequence[str], facts: Sequence[tuple[float, str]]) -> list[str]:
    """The sentences with each fact at its depth: 0 is before all of them, 1 after."""
    found = list(sentences)
    for depth, fact in sorted(facts, key=lambda pair: -pair[0]):
        found.insert(round(depth * len(sentences)), fact)
    return found


def depths(draw: random.Random, count: int) -> list[float]:
    """Places for so many facts, spread over the text: one at random in each of its equal parts, in random order."""
    places = [(i + draw.random()) / count for i in range(count)]
    draw.shuffle(places)
    return places


def fit(encode: Callable[[int, int], list[int]], length: int, key: str) -> list[int]:
    """Token ids of a prompt of ``length`` tokens, 1 % either way.

    Args:
        encode: the prompt with so many units of filler and so many words of padding; more filler, more tokens.
        key: the setting that asks for this length, for messages.

    Raises:
        UserError: the length leaves no room for the question, or cannot be met.
    """
    tolerance = int(length * TOLERANCE)
    bare = len(encode(0, 0))
    if bare > length + tolerance:
        raise UserError(
            f"{key}: {length} is too short, the question alone takes {bare} tokens",
            f"use lengths from {bare + 10} on",
        )
    low, tokens, high = 0, bare, 16
    per_unit = max((len(encode(high, 0)) - bare) / high, 0.1)
    high = 1 << 30
    while high - low > 1:  # the most filler that fits, guessed by its length so far
        guess = low + max(1, min(int((length - tokens) / per_unit), high - low - 1))
        found = len(encode(guess, 0))
        if found > length:
            high = guess
            per_unit = max(per_unit, (found - tokens) / (guess - low))
        else:
            low, tokens = guess, found
    padding, short = 0, length - tokens
    while short > tolerance:  # a word of padding may be several tokens
        per_word = max((len(encode(low, padding + 16)) - (length - short)) / 16, 0.5)
        padding += max(1, int(short / per_word))
        short = length - len(encode(low, padding))
    if short >= -tolerance:
        return encode(low, padding)
    raise UserError(f"{key}: no prompt of {length} tokens can be made", "use another length")


class Endless:
    """Sentences drawn by seed, as many as asked for; the first n are always the same."""

    def __init__(self, draw: random.Random, sentences: Sequence[str] = FILLER) -> None:
        self._draw, self._from, self._drawn = draw, sentences, list[str]()

    def first(self, n: int) -> list[str]:
        while len(self._drawn) < n:
            self._drawn.append(self._draw.choice(self._from))
        return self._drawn[:n]
