"""Tests on the differences of two models on the same samples; no assumption but that a pair's order is chance.

Sign-flip permutation test (Fisher 1935, The Design of Experiments, section 21); of differences that are all of one
size it is the exact McNemar test. Several tasks at once: Holm 1979, Scandinavian Journal of Statistics 6:65.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, stdev

EXACT_UP_TO = 16  # differences that are not 0: 2 ** 16 signs are counted out, more are drawn
POWER = 0.8


def sign_flip(differences: Sequence[float], draws: int, seed: int) -> float:
    """One-sided p value: how often a sum as large comes about if every difference had either sign by chance.

    Counted out where that is cheap (few differences, or all of one size), else the share among ``draws`` random
    signs and the observed ones, so that it is never 0.
    """
    import numpy as np

    moved = np.array([d for d in differences if d != 0], dtype=np.float64)
    n = len(moved)
    if n == 0:
        return 1.0
    sizes = np.abs(moved)
    if sizes.max() - sizes.min() <= 1e-12 * sizes.max():
        up = int((moved > 0).sum())
        return sum(math.comb(n, k) for k in range(up, n + 1)) / 2**n
    least = moved.sum() - 1e-9 * sizes.sum()  # what rounding makes of the same sum is as large
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((signs @ sizes >= least).mean())
    random, hits = np.random.default_rng(seed), 0
    for start in range(0, draws, 1000):  # 1000 at a time bound the memory
        signs = 1 - 2 * random.integers(0, 2, (min(1000, draws - start), n), dtype=np.int8)
        hits += int((signs @ sizes >= least).sum())
    return (hits + 1) / (draws + 1)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p values that may each be compared with the level that all of them together shall keep."""
    adjusted, worst = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: (p[name], name))):
        worst = max(worst, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p}


def detectable(differences: Sequence[float], alpha: float) -> float | None:
    """The mean difference that a two-sided test at ``alpha`` finds in 80 % of cases, given how these scatter.

    None where they do not say: fewer than two, or all the same.
    """
    if len(differences) < 2:
        return None
    scatter = stdev(differences)
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(POWER)
    return z * scatter / math.sqrt(len(differences)) if scatter else None
