"""Statistics: percentiles of one sample, medians and spreads over rounds, ratios between peers.

A percentile is by nearest rank, so it is always a value that was seen. A figure that is quoted is the median over the
rounds, with its quartiles beside it; a ratio is the median of the ratios of each round, because what disturbs a round
disturbs all who take part.

A ratio has an interval that needs no assumption about how the values are distributed: between the k-th smallest and
the k-th largest of n ratios the true median lies with a confidence of 1 - 2 P(fewer than k heads in n throws of a coin)
(the sign test, turned round). With five rounds that is from the lowest to the highest: 93.75 %. It is why a run has
five rounds, and why a ratio of three (75 %) or of one (none) says little.
"""

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Curve = list[tuple[float, float]]
"""A distribution in few points: (share of the values, value)."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` (0 to 1) of the values don't exceed. `ordered` is sorted and not empty."""
    if not ordered:
        raise ValueError("no values have no percentile")
    if not 0 <= share <= 1:
        raise ValueError(f"a share is from 0 to 1, not {share}")
    # The product may miss a whole number by an ulp: 0.07 * 100 is 7.000000000000001.
    rank = math.ceil(round(share * len(ordered), 9))
    return ordered[max(rank - 1, 0)]


def curve(values: Sequence[float]) -> Curve:
    """The distribution in about 140 points, denser towards the tail: as much as a plot can show."""
    ordered = sorted(values)
    shares = [n / 100 for n in range(100)] + [1 - 0.01 * 10 ** (-n / 20) for n in range(40)] + [1.0]
    return [(share, percentile(ordered, share)) for share in shares] if ordered else []


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie below the first edge, from each edge to the next, and from the last on."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return counts


def median_curve(curves: Sequence[Curve]) -> Curve:
    """The median of several curves with the same shares, point by point."""
    return [(points[0][0], statistics.median(point[1] for point in points)) for points in zip(*curves, strict=True)]


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    low: float
    high: float
    quartile1: float
    quartile3: float

    @property
    def iqr(self) -> float:
        """The inter-quartile range: between which values the middle half of the rounds lies."""
        return self.quartile3 - self.quartile1

    def as_json(self) -> dict[str, float]:
        """The same as a JSON object."""
        return {**asdict(self), "iqr": self.iqr}


def spread(values: Sequence[float]) -> Spread:
    """Median, range and quartiles of at least one value."""
    if not values:
        raise ValueError("no values have no spread")
    if len(values) == 1:
        (value,) = values
        return Spread(value, value, value, value, value)
    quartile1, median, quartile3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, min(values), max(values), quartile1, quartile3)


def luck(rounds: int, others: int) -> float:
    """The chance that every round of one run is above every round of another, though nothing differs between the two.

    So many of all the ways to deal the rounds to two runs are like that: the exact Mann-Whitney test at its extreme.
    """
    return 1 / math.comb(rounds + others, rounds)


CONFIDENCE = 0.93
"""What an interval has to reach, if there are rounds enough: just below what five give."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another one's figure this one's is."""

    median: float
    low: float
    high: float
    confidence: float
    """That the true ratio lies from `low` to `high` (0 to 1)."""
    rounds: int

    def as_json(self) -> dict[str, float]:
        """The same as a JSON object."""
        return asdict(self)


def ratio(values: Sequence[float], base: Sequence[float]) -> Ratio | None:
    """How many times `base` the values are, round by round; None when there is nothing to compare."""
    ratios = sorted(value / other for value, other in zip(values, base, strict=False) if other)
    if not ratios:
        return None
    rank, sure = _rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[rank - 1], ratios[-rank], sure, len(ratios))


def confidence(rounds: int) -> float:
    """With how much confidence the interval of so many rounds holds the true ratio (0 to 1)."""
    return _rank(rounds)[1]


def _rank(count: int) -> tuple[int, float]:
    """How far inside the interval of so many ratios may begin, counted from 1, and the confidence that it then has."""
    rank, sure, outside = 1, 0.0, 0.0
    for heads in range((count + 1) // 2):
        outside += math.comb(count, heads) / 2**count
        if heads and 1 - 2 * outside < CONFIDENCE:
            break
        rank, sure = heads + 1, 1 - 2 * outside
    return rank, max(sure, 0.0)
