"""The synthetic forms of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3), generated here.

- ``multi_needle``: names that have numbers; the numbers of some of them are asked for (its multi-key, multi-value and
  multi-query needles, by the settings needles, values and queries).
- ``variable_tracking``: a value goes from variable to variable; all that have it are asked for.
- ``common_words``: a list in which ten words stand many times and the others a few times; the ten are asked for.
- ``frequent_words``: made-up words, how often each stands falls with a power of its rank; the first three count.

Filler, names and wording are our own. The score of a sample is the share of the expected words that stand in the
answer. Length x trial is one sample, and lengths are met within 1 %.
"""

from __future__ import annotations

import itertools
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from longlora.evaluation.settings import SyntheticSettings
from longlora.evaluation.tasks.base import Context, Result, Sample, Task
from longlora.evaluation.tasks.haystack import PADDING, Endless, depths, fit, planted
from longlora.prompts import encode_prompt


@dataclass(frozen=True)
class Puzzle:
    """``text(n)``: the prompt's text with n units of filler. ``expected``: what must stand in the answer.

    ``padding(n)``: n words that meet a length where units are too coarse; in a list whose words are counted each of
    them must be new, or it would be the most frequent one.
    """

    text: Callable[[int], str]
    expected: list[str]
    question: str
    max_new_tokens: int
    padding: Callable[[int], list[str]] = lambda n: [PADDING] * n


class Synthetic(Task):
    """One of the forms. ``make``: a puzzle from a source of chance and the settings."""

    version = 1
    metric = "recall"
    better = "higher"
    groups = (("length",),)

    def __init__(self, name: str, make: Callable[[random.Random, SyntheticSettings], Puzzle]) -> None:
        self.name, self._make = name, make

    def samples(self, context: Context) -> list[Sample]:
        wanted = context.settings.synthetic
        samples = []
        for length in wanted.lengths:
            for trial in range(wanted.trials):
                puzzle = self._make(random.Random(f"{self.name}:{context.settings.seed}:{length}:{trial}"), wanted)
                text = ""

                def encode(units: int, padding: int) -> list[int]:
                    nonlocal text
                    body = " ".join([puzzle.text(units), *puzzle.padding(padding)])  # noqa: B023
                    text = f"{body}\n\n{puzzle.question}"  # noqa: B023
                    return encode_prompt(context.tokenizer, context.template, text)

                ids = fit(encode, length, "evaluate.synthetic.lengths")
                about = {"length": length, "tokens": len(ids)}
                samples.append(
                    Sample(
                        f"{length}-{trial}", ids, 0, puzzle.expected, about, text, max_new_tokens=puzzle.max_new_tokens
                    )
                )
        return samples

    def judge(self, sample: Sample, output: str) -> Result:
        """As its string match over all: every expected word counts by itself."""
        written = set(re.findall(r"\w+", output.replace(",", "").casefold())) | set(
            re.findall(r"\w+", output.casefold())
        )
        found = sum(word.casefold() in written for word in sample.expected)
        right = found == len(sample.expected)
        return {"score": found / len(sample.expected), "verdict": "correct" if right else "wrong"}


def multi_needle(draw: random.Random, settings: SyntheticSettings) -> Puzzle:
    names = _names(draw, settings.needles, _word)
    numbers = {name: [str(draw.randint(1_000_000, 9_999_999)) for _ in range(settings.values)] for name in names}
    facts = [f"One of the numbers of {name} is {number}." for name in names for number in numbers[name]]
    places = list(zip(depths(draw, len(facts)), facts, strict=True))
    asked = draw.sample(names, settings.queries)
    filler = Endless(draw)
    count = settings.queries * settings.values
    return Puzzle(
        lambda n: (
            "Some names have numbers in this text. Keep them in mind.\n\n" + " ".join(planted(filler.first(n), places))
        ),
        [number for name in asked for number in numbers[name]],
        f"Which numbers do these names have in the text: {', '.join(asked)}? Give all {count}.",
        16 * count + 32,
    )


def variable_tracking(draw: random.Random, settings: SyntheticSettings) -> Puzzle:
    variables = _names(
        draw, settings.chains * (settings.hops + 1), lambda d: "".join(d.choices(string.ascii_uppercase, k=5))
    )
    values = draw.sample(range(10_000, 100_000), settings.chains)
    facts: list[tuple[float, str]] = []
    chains = []
    for chain, value in enumerate(values):
        own = variables[chain * (settings.hops + 1) :][: settings.hops + 1]
        lines = [f"VAR {own[0]} = {value}"] + [f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(own)]
        # in order: a variable has its value before it is passed on
        facts += zip(sorted(depths(draw, len(lines))), lines, strict=True)
        chains.append(own)
    filler = Endless(draw)
    return Puzzle(
        lambda n: (
            "Keep track of the variables that are set in this text.\n\n" + "\n".join(planted(filler.first(n), facts))
        ),
        chains[0],
        f"Which variables have the value {values[0]}? Give the names of all {settings.hops + 1}.",
        12 * (settings.hops + 1) + 32,
    )


COMMON, RARE, OFTEN = 10, 3, 30  # RULER's counts: words asked for, times of the others, times of these


def common_words(draw: random.Random, settings: SyntheticSettings) -> Puzzle:
    words = _names(draw, COMMON, _word)
    known = set(words)
    salt = draw.random()
    others, once = _new(draw, _word, known), _new(random.Random(f"{salt}:padding"), _word, known)

    def text(n: int) -> str:
        # A short list has them fewer times, but always more than the others.
        often = max(RARE + 1, min(OFTEN, RARE * n // COMMON))
        listed = words * often + others(n) * RARE
        random.Random(f"{salt}:{n}").shuffle(listed)
        numbered = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
        return f"This list has some words often and others seldom.\n\n{numbered}"

    return Puzzle(text, words, f"Which {COMMON} words stand most often in the list?", 100, once)


ASKED, ALPHA = 3, 2.0  # RULER's: the three most frequent words, exponent of the zeta law


def frequent_words(draw: random.Random, settings: SyntheticSettings) -> Puzzle:
    words = _names(draw, 50, _letters)
    salt = draw.random()

    def text(n: int) -> str:
        counts = [max(1, round(n * rank**-ALPHA)) for rank in range(1, len(words) + 1)]
        counts = [c + max(0, ASKED - rank) for rank, c in enumerate(counts)]  # the first three differ at any length
        listed = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
        random.Random(f"{salt}:{n}").shuffle(listed)
        return f"This coded text repeats some words often.\n\n{' '.join(listed)}"

    once = _new(random.Random(f"{salt}:padding"), _letters, set(words))
    return Puzzle(text, words[:ASKED], f"Which {ASKED} words stand most often in the coded text?", 50, once)


SYLLABLES = ("ba", "den", "fir", "gol", "hem", "jar", "kel", "lum", "mor", "nat", "pil", "rus", "sol", "tam", "ven",
             "wex")  # fmt: skip


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(SYLLABLES, k=draw.randint(2, 4)))


def _letters(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=6))


def _new(draw: random.Random, make: Callable[[random.Random], str], known: set[str]) -> Callable[[int], list[str]]:
    """The first n of words that are not ``known``, and are from then on; always the same ones."""
    made: list[str] = []

    def first(n: int) -> list[str]:
        while len(made) < n:
            if (word := make(draw)) not in known:
                known.add(word)
                made.append(word)
        return made[:n]

    return first


def _names(draw: random.Random, count: int, make: Callable[[random.Random], str]) -> list[str]:
    """So many different ones."""
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(make(draw))
    return list(found)


RULER = tuple(
    Synthetic(make.__name__, make) for make in (multi_needle, variable_tracking, common_words, frequent_words)
)
