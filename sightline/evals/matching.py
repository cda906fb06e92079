"""Which answer belongs to which sample: by id, or by order where a file has no ids.

Both are read side by side, so that files in the order of the samples take no memory; what comes out of order waits.
Nothing is dropped without being counted.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from sightline.errors import InputError
from sightline.evals.answer_files import Given, normal_key
from sightline.records.rows import Answer, Sample


@dataclass
class Tally:
    """What became of the answers; filled while `match` is read to its end."""

    samples: int = 0
    missing: int = 0
    repeated: int = 0
    unknown: int = 0
    first_unknown: str = ""
    by_order: bool = False
    further: int = 0

    def sentences(self) -> list[str]:
        """What a user should be told; empty where every sample has one answer."""
        said = []
        if self.by_order:
            said.append("the answers name no ids and were taken in the order of the questions")
        if self.missing:
            said.append(f"{self.missing} of {self.samples} samples have no answer and are unscored")
        if self.repeated:
            said.append(f"{self.repeated} answers are to a sample that was answered before; the first counts")
        if self.further:
            said.append(f"{self.further} answers are further ones to a sample that has several; each counts")
        if self.unknown:
            said.append(f"{self.unknown} answers are to no sample of the benchmark ({self.first_unknown})")
        return said


def match(
    samples: Callable[[], Iterable[Sample]], answers: Iterable[Given], tally: Tally
) -> Iterator[tuple[Sample, Answer | None]]:
    """Every sample in order with its answer, None where there is none.

    `samples` is asked again only where answers are left over, to tell repeated from unknown ones.

    Raises:
        InputError: no answer, an answer without an id among ones with, more answers than samples in a file without
            ids, or one to another question there, or no answer that any sample knows.
    """
    reading = iter(answers)
    first = next(reading, None)
    if first is None:
        raise InputError("the answers are empty; give at least one")
    tally.by_order = first.key is None
    together = chain([first], reading)
    yield from _by_order(samples(), together, tally) if tally.by_order else _by_id(samples, together, tally)


def _by_id(
    samples: Callable[[], Iterable[Sample]], answers: Iterator[Given], tally: Tally
) -> Iterator[tuple[Sample, Answer | None]]:
    waiting: dict[str, Given] = {}
    last = ""
    for sample in samples():
        tally.samples += 1
        key = last = normal_key(sample.id) or ""
        given = waiting.pop(key, None)
        while given is None and (read := next(answers, None)) is not None:
            if read.key is None:
                raise InputError(f"{read.where}: the answer has no id, though others have; give it one")
            if read.key == key:
                given = read
            elif waiting.setdefault(read.key, read) is not read:
                tally.repeated += 1
        tally.missing += given is None
        yield sample, None if given is None else _answer(sample, given)
    _left_over(samples, chain(waiting.values(), answers), tally, last)


def _left_over(samples: Callable[[], Iterable[Sample]], answers: Iterable[Given], tally: Tally, last: str) -> None:
    """Count what no sample took: answers to samples that had one already, and answers to none."""
    known: set[str | None] | None = None
    for given in answers:
        if known is None:
            known = {normal_key(sample.id) for sample in samples()}
        if given.key in known:
            tally.repeated += 1
            continue
        tally.unknown += 1
        tally.first_unknown = tally.first_unknown or f"{given.where} answers {given.key!r}"
    if tally.missing == tally.samples:
        known_as = f", whose ids look like {last!r}" if last else ""
        raise InputError(f"no answer is to a sample of the benchmark{known_as} ({tally.first_unknown}); check the ids")


def _by_order(
    samples: Iterable[Sample], answers: Iterator[Given], tally: Tally
) -> Iterator[tuple[Sample, Answer | None]]:
    for sample in samples:
        tally.samples += 1
        given = next(answers, None)
        if given is None:
            tally.missing += 1
            yield sample, None
            continue
        if given.key is not None:
            raise InputError(f"{given.where}: the answer has an id, though the first has none; give all of them ids")
        if given.question and sample.prompt and not _same(sample.prompt, given.question):
            raise InputError(
                f"{given.where}: answers {given.question[:80]!r} where the list asks {sample.prompt[:80]!r};"
                " put the answers in the list's order, or give each its question's id"
            )
        yield sample, _answer(sample, given)
    if (extra := next(answers, None)) is not None:
        raise InputError(
            f"{extra.where}: there are only {tally.samples} questions, and the answers have no ids to tell which are"
            " too many; give each its question's id"
        )


def _same(asked: str, given: str) -> bool:
    """Whether a row's question is the sample's, but for case and instructions put around it."""
    one, other = " ".join(asked.split()).casefold(), " ".join(given.split()).casefold()
    return one in other or other in one


def _answer(sample: Sample, given: Given) -> Answer:
    return Answer.model_construct(
        sample_id=sample.id, cluster=sample.cluster, text=given.text, tokens=given.tokens, finished=given.finished
    )
