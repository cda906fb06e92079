"""Is it more than chance, over one item's answers (exact McNemar) and over a whole table of differences (Holm)?

Values of p come from `statistics` (the same resamples as the intervals) or from McNemar's test here. Nothing is read
and no verdict word is chosen.
"""

from collections.abc import Iterable, Sequence

from scipy import special

from sightline.evals.metrics import Metric
from sightline.evals.sums import side_by_side
from sightline.records.rows import Row, Score


class McNemar(Row):
    """Items that only one of two models has right; `p` is two-sided and exact.

    The test takes items for independent, which questions on one image are not: where they are many an image, the
    paired interval by clusters is the one to believe.
    """

    only_before: int
    only_after: int
    p: float


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Values of p corrected for being several (Holm 1979), in the order given; None stays None and counts for none.

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before it, and at most 1.
    """
    places = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(places):
        largest = max(largest, min(1.0, value * (len(places) - rank)))
        corrected[place] = largest
    return corrected


def mcnemar(before: Iterable[Score], after: Iterable[Score], metric: Metric) -> McNemar | None:
    """The exact test over the items that both scored; None where the metric is no mean of zeros and ones."""
    if metric.total or metric.denominator:
        return None
    only = [0, 0]
    for pair in side_by_side([before, after]):
        if any(score is None or (metric.group and metric.group not in score.groups) for score in pair):
            continue
        terms = [metric.terms(score.values, f"score of {score.sample_id!r}") for score in pair if score is not None]
        if any(term is None for term in terms):
            continue
        one, other = (term[0] for term in terms if term is not None)
        if not {one, other} <= {0.0, 1.0}:
            return None
        if one != other:
            only[int(other > one)] += 1
    return McNemar(only_before=only[0], only_after=only[1], p=exact_binomial(only[0], only[1]))


def exact_binomial(first: int, second: int) -> float:
    """The two-sided p of so many heads and tails of a fair coin; 1 where there are none."""
    return min(1.0, 2 * float(special.bdtr(min(first, second), first + second, 0.5)))
