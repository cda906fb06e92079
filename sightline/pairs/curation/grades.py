"""Scores that people gave: rows of `records.Grade` -> one number for each sample, or for each of its answers.

Criteria are weighted, then raters count alike. Who asks people is `sightline label`, whose directories are read as they
are; any program may write such rows into a file.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sightline.data import labels
from sightline.errors import InputError
from sightline.records import Grade, read_rows

#: (sample, answer): the answer is empty where a sample has one alone.
Key = tuple[str, str]


def read_grades(path: Path, criteria: Mapping[str, float]) -> dict[Key, float]:
    """The mean over raters of the weighted mean over `criteria`; without any named, all that a row has count alike.

    A row that lacks one of the criteria says nothing here: it may be about something else.

    Raises:
        InputError: no such file, a row that is no grade, or no row has the criteria.
    """
    given: defaultdict[Key, list[float]] = defaultdict(list)
    known: set[str] = set()
    rows = labels.read_grades(path) if labels.is_labels(path) else read_rows(path, Grade, allow_torn_tail=True)
    for grade in rows:
        scores = {name: value for name, value in grade.scores.items() if value is not None}
        known |= scores.keys()
        wanted = criteria or dict.fromkeys(scores, 1.0)
        if wanted and wanted.keys() <= scores.keys():
            total = sum(weight * scores[name] for name, weight in wanted.items())
            given[grade.sample_id, grade.answer_id].append(total / sum(wanted.values()))
    if not given:
        raise InputError(
            f"{path}: no row has the criteria {', '.join(criteria) or 'at all'}; there are: {', '.join(sorted(known))}"
        )
    return {key: sum(values) / len(values) for key, values in given.items()}
