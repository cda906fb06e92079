"""Two questions that belong together: a picture counts where both are right.

MME asks so about pictures and lab-meta about wishes; what "right" is they say themselves. Nothing is scored here.
"""

from collections.abc import Callable, Iterable, Iterator

from sightline.records.rows import Score


def both_right(
    scores: Iterable[Score], right: str, both: str, groups: Callable[[Score], tuple[str, ...]]
) -> Iterator[Score]:
    """The scores in order; the second of each cluster gets the value `both`: 1 where `right` is 1 on both, else 0.

    It is None where either is unscored. `groups` are what the second one belongs to besides, so that a metric over
    them counts each two once. The two may stand apart; what waits is the first ones alone.
    """
    first: dict[str, Score] = {}
    for score in scores:
        other = first.pop(score.cluster, None)
        if other is None:
            first[score.cluster] = score
            yield score
            continue
        values = (score.values[right], other.values[right])
        found = None if None in values else float(values == (1.0, 1.0))
        yield score.model_copy(
            update={"values": {**score.values, both: found}, "groups": (*score.groups, *groups(score))}
        )
