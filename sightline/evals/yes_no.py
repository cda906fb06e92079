"""Yes/no answers by the official POPE rule, and the confusion metrics over them.

It asks nothing and draws no questions: a benchmark brings those and calls `score_yes_no`. Intervals of the metrics come
from `statistics`.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from sightline.evals.benchmark import TOUCHED, AnyMetric, Metric, count, mean
from sightline.evals.questions import find_reasoning
from sightline.records.rows import Answer, Score

#: Any of these as a word of the first sentence makes the answer a no; everything else is a yes, even nothing at all.
NO_WORDS = frozenset({"No", "not", "no"})
_PLAIN = re.compile(r"\b(?:yes|no|not)\b", re.IGNORECASE)


def parse_yes_no(text: str) -> bool:
    """True for yes, by the rule of POPE's `evaluate.py` (Li et al. 2023, arXiv 2305.10355), its quirks included.

    The text up to the first full stop, commas removed, split at single spaces; case matters ("NO" is a yes).
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO_WORDS.isdisjoint(words)


def is_touched(text: str) -> bool:
    """Whether the official rule decided by a default or a quirk: plainly read, the answer says otherwise, or neither.

    The plain reading is the answer's first "yes", "no" or "not", whatever its case and place. Reasoning in tags is no
    part of the answer, but the rule reads it, so that it decides.
    """
    if find_reasoning(text) is not None:
        return True
    found = _PLAIN.search(text)
    return found is None or (found.group().lower() == "yes") is not parse_yes_no(text)


def score_yes_no(answer: Answer, *, truth: bool) -> Score:
    """One cell of the confusion matrix; `empty` marks an answer without text, which the official rule takes for yes."""
    says_yes = parse_yes_no(answer.text)
    values: dict[str, float | None] = {
        "true_positive": float(says_yes and truth),
        "false_positive": float(says_yes and not truth),
        "true_negative": float(not says_yes and not truth),
        "false_negative": float(not says_yes and truth),
        "empty": float(not answer.text.strip()),
        TOUCHED: float(is_touched(answer.text)),
    }
    details = {"parsed": "yes" if says_yes else "no", "truth": "yes" if truth else "no"}
    return Score(sample_id=answer.sample_id, cluster=answer.cluster, values=values, details=details)


YES_NO_METRICS: dict[str, AnyMetric] = {
    "accuracy": Metric(label="Accuracy", numerator={"true_positive": 1, "true_negative": 1}, higher_is_better=True),
    "precision": Metric(
        label="Precision of yes",
        numerator={"true_positive": 1},
        denominator={"true_positive": 1, "false_positive": 1},
        higher_is_better=True,
    ),
    "recall": Metric(
        label="Recall of yes",
        numerator={"true_positive": 1},
        denominator={"true_positive": 1, "false_negative": 1},
        higher_is_better=True,
    ),
    "f1": Metric(
        label="F1 of yes",
        numerator={"true_positive": 2},
        denominator={"true_positive": 2, "false_positive": 1, "false_negative": 1},
        higher_is_better=True,
        primary=True,
    ),
    # Of the predictions, never of the questions: the share of yes among the questions is a constant.
    "yes_ratio": Metric(
        label="Yes ratio of the answers", numerator={"true_positive": 1, "false_positive": 1}, higher_is_better=None
    ),
    "empty": mean("empty", "Empty answers (count as yes)", higher_is_better=False),
}

#: The cells themselves, under the names that POPE's script prints.
CELL_METRICS: dict[str, AnyMetric] = {
    "tp": count("true_positive", "Yes, and it is there"),
    "fp": count("false_positive", "Yes, and it is not there"),
    "tn": count("true_negative", "No, and it is not there"),
    "fn": count("false_negative", "No, and it is there"),
}


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
