"""Paired differences, shares and the place of an optimum, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        count: of seeds, or of settings, that it rests on.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.high < 0


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of two figures.

    Attributes:
        value: between -1 and 1.
        p_value: the probability of one as strong without any connection.
        count: of cases that it rests on.
    """

    value: float
    p_value: float
    count: int


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Spearman's correlation.

    Args:
        first: one value a case.
        second: of the same cases, in the same order.
    """
    test = stats.spearmanr(first, second)
    return RankCorrelation(float(test.statistic), float(test.pvalue), len(first))


def mean(values: Sequence[float]) -> Interval:
    """Mean with Student's t interval; of a single value the interval is infinite.

    Args:
        values: at least one.
    """
    count = len(values)
    middle = float(np.mean(values))
    if count < 2:
        return Interval(middle, -math.inf, math.inf, count)
    # The interval of scipy is not a number where all values are equal.
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * stats.sem(values))
    return Interval(middle, middle - half, middle + half, count)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of first - second, pair by pair, with Student's t interval.

    Args:
        first: one value a seed.
        second: of the same seeds, in the same order.
    """
    return mean([a - b for a, b in zip(first, second, strict=True)])


def share(successes: int, count: int) -> Interval:
    """Share of successes with Wilson's score interval.

    Args:
        successes: how many.
        count: of how many, at least one.
    """
    test = stats.binomtest(successes, count)
    wilson = test.proportion_ci(CONFIDENCE, method="wilson")
    return Interval(test.statistic, wilson.low, wilson.high, count)


def place_of_best(places: Sequence[float], values: np.ndarray, draws: int = 2000) -> Interval:
    """Where the mean over seeds is largest, with the interval of a bootstrap over the seeds.

    Args:
        places: n of them.
        values: `(n, seeds)`, larger is better.
        draws: of the bootstrap.
    """
    seeds = values.shape[1]
    chosen = np.random.default_rng(0).integers(0, seeds, size=(draws, seeds))
    means = values[:, chosen].mean(axis=2)
    best = np.asarray(places)[means.argmax(axis=0)]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(best, [tail, 100 - tail], method="inverted_cdf")
    place = places[int(values.mean(axis=1).argmax())]
    return Interval(float(place), float(low), float(high), seeds)
