"""What a recipe is: a function that finds questions in a document, registered under a name.

A recipe yields candidates lazily in an order drawn from ``rng``; the builder takes as many as it wants and
places each in a window. To add one: a module beside this one, one function with ``@recipe``, one line in
``__init__``. Raise its version when the same document gives other candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from datasets_build.reading import Reading

SCOPES = ("title", "author", "opening", "sentence", "number")


@dataclass(frozen=True)
class Candidate:
    """A question about a document, before it has a window.

    ``evidence`` are (passage index, part of its text; "" for all of it). The window always holds ``needs``
    and the evidence, except what it ``hides``. Beside other documents the question is about one of them: it
    says which (``scopes``), or needs not, where it quotes ``keys`` that stand in none of the others.
    """

    question: str
    answer: str
    evidence: tuple[tuple[int, str], ...]
    needs: tuple[int, ...] = ()
    hides: frozenset[int] = frozenset()
    whole: bool = False  # can be answered only from the whole document
    distinct: bool = False  # a second row with this answer would teach nothing
    keys: tuple[str, ...] = ()  # parts of the question that tell the place
    scopes: tuple[str, ...] = SCOPES  # how the question may name its document
    plants: tuple[str, ...] = ()  # sentences put into the context; the answer stands in the first

    def span(self) -> tuple[int, int]:
        """First and last passage that the window has to hold."""
        indices = [i for i in (*self.needs, *(i for i, _ in self.evidence)) if i not in self.hides]
        return (min(indices), max(indices)) if indices else (0, -1)


@dataclass(frozen=True)
class FromWindow:
    """A question that depends on what the window shows; ``make`` gets its first and last passage index."""

    anchor: int  # a passage that the window holds
    make: Callable[[int, int], Candidate | None]
    avoid: frozenset[int] = frozenset()  # passages that the window must not hold


@dataclass(frozen=True)
class Reject:
    """Why there is no row: ``reason`` is a short slug to count by, ``detail`` names the case."""

    reason: str
    detail: str = ""


Found = Candidate | FromWindow | Reject
Finder = Callable[[Reading, Random], Iterator[Found]]


@dataclass(frozen=True)
class Recipe:
    name: str
    version: int
    find: Finder
    several: bool  # its questions are asked beside other documents only


RECIPES: dict[str, Recipe] = {}


def recipe(name: str, version: int, several: bool = False) -> Callable[[Finder], Finder]:
    """Register a function as the recipe ``name``."""

    def register(find: Finder) -> Finder:
        RECIPES[name] = Recipe(name, version, find, several)
        return find

    return register


def shuffled(items: list, rng: Random) -> list:
    """A shuffled copy."""
    copy = list(items)
    rng.shuffle(copy)
    return copy
