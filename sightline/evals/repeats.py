"""Several answers to one sample, such as captions of one image, for benchmarks that officially score all of them.

The second answer to a sample becomes an answer to a copy of it, whose id ends in "#2". The copy keeps the sample's
cluster, so that intervals treat both as one image. Answers are aligned with samples in `answer_alignment`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from sightline.errors import InputError
from sightline.evals.answer_reader import AnswerRow, normal_key
from sightline.records.rows import Sample


class RepeatKeys:
    """Counter that makes repeated keys unique: a, b, a#2, a#3."""

    def __init__(self) -> None:
        self._met: Counter[str] = Counter()

    def key(self, key: str) -> str:
        self._met[key] += 1
        return repeat_key(key, self._met[key])


def repeat_key(key: str, number: int) -> str:
    """The key of answer `number` to a sample, counted from 1."""
    return key if number == 1 else f"{key}#{number}"


def count_answers(answers: Iterable[AnswerRow]) -> Counter[str]:
    """The number of answers to each sample, by its key."""
    return Counter(given.key for given in answers if given.key is not None)


def refuse_repeats(answers: Iterable[AnswerRow]) -> None:
    """Raise InputError, naming file and row, for the first second answer to a sample."""
    first: dict[str, str] = {}
    for given in answers:
        if given.key is None:
            continue
        if given.key in first:
            raise InputError(
                f"{given.where}: a second answer to {given.key!r}, after {first[given.key]}; the official script would "
                "count both, so delete one"
            )
        first[given.key] = given.where


def number_answers(answers: Iterable[AnswerRow]) -> Iterator[AnswerRow]:
    """The answers with unique keys."""
    numbering = RepeatKeys()
    for given in answers:
        yield given if given.key is None else given._replace(key=numbering.key(given.key))


def copy_samples(samples: Iterable[Sample], counts: Mapping[str, int]) -> Iterator[Sample]:
    """The samples in order, each repeated for its number of answers."""
    for sample in samples:
        yield sample
        for number in range(2, counts.get(normal_key(sample.id) or "", 1) + 1):
            yield sample.model_copy(update={"id": repeat_key(sample.id, number)})


def is_copy(sample_id: str, counts: Mapping[str, int]) -> bool:
    """Whether a sample is a copy made for an additional answer."""
    original, _, number = sample_id.rpartition("#")
    return number.isdecimal() and counts.get(normal_key(original) or "", 0) > 1
