"""Yes/no answers by the official POPE rule, and the confusion metrics over them.

Benchmarks bring the questions and call `score_yes_no`.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, Metric, count, mean
from sightline.evals.questions import find_reasoning
from sightline.records.rows import Answer, Score

#: Any of these as a word of the first sentence makes the answer a no; every other answer, even an empty one, is a yes.
NO_WORDS = frozenset({"No", "not", "no"})
_PLAIN = re.compile(r"\b(?:yes|no|not)\b", re.IGNORECASE)


def parse_yes_no(text: str) -> bool:
    """True for yes, by the rule of POPE's `evaluate.py` (Li et al. 2023, arXiv 2305.10355), quirks included.

    The rule reads the text up to the first full stop, without commas, split at single spaces. Case matters: "NO" is a
    yes.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO_WORDS.isdisjoint(words)


def decided_by_quirk(text: str) -> bool:
    """Whether a default or quirk of the official rule decided: a plain reading gives another result, or none.

    The plain reading is the answer's first "yes", "no" or "not" in any case and place. Reasoning in tags is not part of
    the answer, but the rule reads it, so it counts as a quirk.
    """
    if find_reasoning(text) is not None:
        return True
    found = _PLAIN.search(text)
    return found is None or (found.group().lower() == "yes") is not parse_yes_no(text)


def score_yes_no(answer: Answer, *, truth: bool) -> Score:
    """One cell of the confusion matrix; `empty` marks an answer without text, which the official rule reads as yes."""
    says_yes = parse_yes_no(answer.text)
    values: dict[str, float | None] = {
        "true_positive": float(says_yes and truth),
        "false_positive": float(says_yes and not truth),
        "true_negative": float(not says_yes and not truth),
        "false_negative": float(not says_yes and truth),
        "empty": float(not answer.text.strip()),
        DECIDED_BY_QUIRK: float(decided_by_quirk(answer.text)),
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

    The value is None where either is unscored. `groups` are added to the second score, so that a metric over them
    counts each pair once. The two need not be adjacent; only the first ones are buffered.
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
