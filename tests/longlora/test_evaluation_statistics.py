"""Intervals cover what they promise."""

from __future__ import annotations

import math
import random

import pytest

from longlora.evaluation.statistics import Bootstrap, paired_proportions, wilson


def test_mean_and_reproducibility() -> None:
    values = [1.0, 2.0, 4.0, 9.0]
    by = Bootstrap(2000, 0.95, seed=3)
    interval = by.mean(values)
    assert interval.value == 4.0 and interval.n == 4
    assert interval.low < 4 < interval.high <= 9 and interval.low >= 1
    assert by.mean(values) == interval
    many = [float(i * i % 17) for i in range(50)]
    assert by.mean(many) != Bootstrap(2000, 0.95, seed=4).mean(many)


def test_one_sample_has_no_interval() -> None:
    assert Bootstrap().mean([2.0]).low is None
    assert Bootstrap().perplexity([2.0], [1]).high is None


def test_bootstrap_coverage() -> None:
    """95 % intervals of a mean of 40 cover the truth about 95 times of 100 (percentile: a little less)."""
    draw = random.Random(0)
    hits = 0
    for i in range(300):
        interval = Bootstrap(500, 0.95, seed=i).mean([draw.gauss(1, 2) for _ in range(40)])
        hits += interval.low <= 1 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_perplexity_is_weighted_by_tokens() -> None:
    by = Bootstrap(200)
    losses, tokens = [10.0, 1.0], [5, 20]
    assert by.perplexity(losses, tokens).value == pytest.approx(math.exp(11 / 25))
    difference, ratio = by.perplexity_change(losses, [x * 1.1 for x in losses], tokens)
    assert ratio.value == pytest.approx(math.exp(0.1 * 11 / 25))
    assert difference.value == pytest.approx(math.exp(1.1 * 11 / 25) - math.exp(11 / 25))
    same_difference, same_ratio = by.perplexity_change(losses, losses, tokens)
    assert (same_difference.low, same_difference.high, same_ratio.low) == (0, 0, 1)


def test_wilson() -> None:
    """Values of Wilson's interval from its formula, worked by hand with z = 1.959964."""
    i = wilson(8, 10)
    assert (i.low, i.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    none, every = wilson(0, 12), wilson(12, 12)
    assert none.low == 0 and none.high == pytest.approx(0.2425, abs=1e-4)
    assert every.high == 1 and every.low == pytest.approx(0.7575, abs=1e-4)
    with pytest.raises(ValueError):
        wilson(0, 0)


def test_paired_proportions() -> None:
    base, other = [True] * 6 + [False] * 6, [True] * 12
    i = paired_proportions(base, other)
    assert i.value == 0.5 and 0 < i.low < 0.5 < i.high < 1
    agree = paired_proportions([True] * 12, [True] * 12)
    assert agree.value == 0 and agree.low < 0 < agree.high  # twelve equal pairs prove little
    swapped = paired_proportions(other, base)
    assert swapped.value == -i.value and swapped.low == pytest.approx(-i.high)


def test_paired_proportions_published_example() -> None:
    """Cells 36, 12, 2, 0 of 50, an example of Newcombe's paper: method 10 gives 0.0569 to 0.3404."""
    first = [True] * 48 + [False] * 2
    second = [True] * 36 + [False] * 12 + [True] * 2
    i = paired_proportions(second, first)
    assert i.value == pytest.approx(0.2)
    assert (i.low, i.high) == (pytest.approx(0.0569, abs=1e-4), pytest.approx(0.3404, abs=1e-4))


def test_paired_proportions_coverage() -> None:
    draw = random.Random(1)
    hits = 0
    for _ in range(400):
        pairs = [(x < 0.5, x < 0.7 if draw.random() < 0.8 else draw.random() < 0.7) for x in
                 (draw.random() for _ in range(24))]  # fmt: skip
        i = paired_proportions([a for a, _ in pairs], [b for _, b in pairs])
        hits += i.low <= 0.2 <= i.high
    assert hits / 400 >= 0.92
