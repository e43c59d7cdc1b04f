"""Intervals. Percentile bootstrap over samples (Efron & Tibshirani 1993, chapter 13); Wilson's score interval
for a proportion (Wilson 1927); Newcombe's hybrid score interval for a paired difference of proportions
(Newcombe 1998, Statistics in Medicine 17:2635, method 10), which stays honest where every pair agrees.

Samples from one document are treated as independent; where they are not, the intervals are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds; they are None where n is too small to say (one sample)."""

    value: float
    low: float | None
    high: float | None
    n: int

    def to_dict(self, **more: Any) -> dict[str, Any]:
        return {**asdict(self), **more}


@dataclass(frozen=True)
class Bootstrap:
    """How to resample: ``resamples`` draws with replacement of all samples, by ``seed``."""

    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0

    def _interval(self, value: float, statistics: np.ndarray, n: int) -> Interval:
        import numpy as np

        if n < 2:
            return Interval(value, None, None, n)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(statistics, [tail, 1 - tail])
        return Interval(value, float(low), float(high), n)

    def _sums(self, *columns: Sequence[float]) -> list[np.ndarray]:
        """Sum of each column over each resample, the same draws for all: arrays of shape (resamples,)."""
        import numpy as np

        data = np.asarray(columns, dtype=np.float64)
        n = data.shape[1]
        random = np.random.default_rng(self.seed)
        sums = []
        for start in range(0, self.resamples, 1000):  # counts, 1000 resamples at a time, bound the memory
            rows = min(1000, self.resamples - start)
            counts = random.multinomial(n, np.full(n, 1 / n), size=rows)
            sums.append(counts @ data.T)
        return list(np.concatenate(sums).T)

    def mean(self, values: Sequence[float]) -> Interval:
        """The mean of ``values``. For a paired difference, give the differences."""
        (sums,) = self._sums(values)
        return self._interval(math.fsum(values) / len(values), sums / len(values), len(values))

    def perplexity(self, losses: Sequence[float], tokens: Sequence[int]) -> Interval:
        """exp(sum of losses in nats / number of tokens), resampling windows."""
        import numpy as np

        loss, count = self._sums(losses, tokens)
        return self._interval(_perplexity(losses, tokens), np.exp(loss / count), len(losses))

    def perplexity_change(
        self, base: Sequence[float], other: Sequence[float], tokens: Sequence[int]
    ) -> tuple[Interval, Interval]:
        """Difference and ratio of two perplexities (other against base) on the same windows, paired."""
        import numpy as np

        loss_a, loss_b, count = self._sums(base, other, tokens)
        a, b = np.exp(loss_a / count), np.exp(loss_b / count)
        value_a, value_b = _perplexity(base, tokens), _perplexity(other, tokens)
        n = len(base)
        return self._interval(value_b - value_a, b - a, n), self._interval(value_b / value_a, b / a, n)


def _perplexity(losses: Sequence[float], tokens: Sequence[int]) -> float:
    return math.exp(math.fsum(losses) / sum(tokens))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion.

    Raises:
        ValueError: n is 0.
    """
    if n == 0:
        raise ValueError("a proportion of no samples")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(p, low, high, n)


def paired_proportions(base: Sequence[bool], other: Sequence[bool], confidence: float = 0.95) -> Interval:
    """other - base on the same samples, by Newcombe's method 10."""
    n = len(base)
    both = sum(a and b for a, b in zip(base, other, strict=True))
    only_base, only_other = sum(base) - both, sum(other) - both
    neither = n - both - only_base - only_other
    p, q = wilson(sum(other), n, confidence), wilson(sum(base), n, confidence)
    assert p.low is not None and p.high is not None and q.low is not None and q.high is not None
    margins = (both + only_base) * (only_other + neither) * (both + only_other) * (only_base + neither)
    phi = 0.0
    if margins:
        cross: float = both * neither - only_base * only_other
        if cross > 0:
            cross = max(cross - n / 2, 0)  # continuity correction of the method
        phi = cross / math.sqrt(margins)
    difference = p.value - q.value

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    low = difference - distance(p.value - p.low, q.high - q.value)
    high = difference + distance(p.high - p.value, q.value - q.low)
    return Interval(difference, low, high, n)


@dataclass(frozen=True)
class Comparison:
    """Base, merged, and their paired difference (None with one model)."""

    base: Interval
    merged: Interval | None = None
    difference: Interval | None = None
    ratio: Interval | None = None  # merged / base, where that is the natural scale


def compare(
    scale: str, base: Sequence[Mapping[str, Any]], merged: Sequence[Mapping[str, Any]] | None, by: Bootstrap
) -> Comparison:
    """From results of the same samples in the same order (``score``; ``tokens`` for perplexity) to numbers.

    scale: ``mean`` of scores; ``proportion``, scores are 0 or 1; ``perplexity``, scores are nats per token.
    """
    first = [r["score"] for r in base]
    second = None if merged is None else [r["score"] for r in merged]
    if scale == "perplexity":
        tokens = [r["tokens"] for r in base]
        a = [score * n for score, n in zip(first, tokens, strict=True)]
        if second is None:
            return Comparison(by.perplexity(a, tokens))
        b = [score * n for score, n in zip(second, tokens, strict=True)]
        difference, ratio = by.perplexity_change(a, b, tokens)
        return Comparison(by.perplexity(a, tokens), by.perplexity(b, tokens), difference, ratio)
    if scale == "proportion":
        ones = wilson(sum(s == 1 for s in first), len(first), by.confidence)
        if second is None:
            return Comparison(ones)
        change = paired_proportions([s == 1 for s in first], [s == 1 for s in second], by.confidence)
        return Comparison(ones, wilson(sum(s == 1 for s in second), len(second), by.confidence), change)
    if second is None:
        return Comparison(_mean(first, by))
    return Comparison(_mean(first, by), _mean(second, by), by.mean([y - x for x, y in zip(first, second, strict=True)]))


def _mean(scores: Sequence[float], by: Bootstrap) -> Interval:
    """By bootstrap; Wilson's where all are wholly right or wrong: resampling a few that are alike knows nothing."""
    if all(score in (0, 1) for score in scores):
        return wilson(sum(score == 1 for score in scores), len(scores), by.confidence)
    return by.mean(scores)
