"""Several answers to one sample, such as captions of one picture, where a benchmark's owners score every one of them.

The second answer to a sample becomes an answer to a copy of it, whose id ends in "#2"; its cluster stays the sample's,
so that intervals know that both are on one picture. Which answer belongs to which sample is `matching`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from sightline.evals.answer_reader import Given, normal_key
from sightline.records.rows import Sample


class Numbering:
    """Keys as they come, from the second of its kind on with its number: a, b, a#2, a#3."""

    def __init__(self) -> None:
        self._met: Counter[str] = Counter()

    def key(self, key: str) -> str:
        self._met[key] += 1
        return numbered(key, self._met[key])


def numbered(key: str, number: int) -> str:
    """The key of the answer `number` to a sample, from 1."""
    return key if number == 1 else f"{key}#{number}"


def count_answers(answers: Iterable[Given]) -> Counter[str]:
    """How many answers there are to each sample, by its key."""
    return Counter(given.key for given in answers if given.key is not None)


def number_answers(answers: Iterable[Given]) -> Iterator[Given]:
    """The answers, each with a key of its own."""
    numbering = Numbering()
    for given in answers:
        yield given if given.key is None else given._replace(key=numbering.key(given.key))


def copy_samples(samples: Iterable[Sample], counts: Mapping[str, int]) -> Iterator[Sample]:
    """The samples in order, one that has several answers as often as it has answers."""
    for sample in samples:
        yield sample
        for number in range(2, counts.get(normal_key(sample.id) or "", 1) + 1):
            yield sample.model_copy(update={"id": numbered(sample.id, number)})


def is_copy(sample_id: str, counts: Mapping[str, int]) -> bool:
    """Whether a sample is a copy for a further answer."""
    original, _, number = sample_id.rpartition("#")
    return number.isdecimal() and counts.get(normal_key(original) or "", 0) > 1
