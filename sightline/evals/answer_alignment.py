"""Which answer belongs to which sample: by id, by order without ids, by picture and question where ids fail.

Samples and answers are read side by side, so that files in the order of the samples take no memory; what comes out of
order waits. Nothing is dropped without being counted. What a row says was asked is always compared with the sample.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from sightline.errors import InputError
from sightline.evals.answer_reader import Given, normal_key, picture_name
from sightline.evals.questions import same_question
from sightline.records.rows import Answer, Sample

Samples = Callable[[], Iterable[Sample]]
#: The task of samples that are told apart by their picture alone, whatever words asked for the description.
DESCRIPTION = "description"
#: So many answers that all equal the truth are more likely the truth than a model's.
_SUSPICIOUS = 30


@dataclass
class AlignmentCounts:
    """What became of the answers; filled while `match` is read to its end."""

    samples: int = 0
    missing: int = 0
    repeated: int = 0
    unknown: int = 0
    first_unknown: str = ""
    by_order: bool = False
    ids_fit: bool = True
    by_question: int = 0
    other_question: int = 0
    first_other: str = ""
    scored: int = 0
    equal_truth: int = 0
    answer_key: str = ""
    further: int = 0

    def sentences(self) -> list[str]:
        """What a user should be told; empty where every sample has one answer."""
        lines = []
        if self.by_order:
            what = "name no ids" if self.ids_fit else "have ids of another numbering, ask what the list asks,"
            lines.append(f"the answers {what} and were taken in the order of the questions")
        if self.missing:
            lines.append(f"{self.missing} of {self.samples} samples have no answer and are unscored")
        if self.repeated:
            lines.append(f"{self.repeated} answers are to a sample that was answered before; the first counts")
        if self.further:
            lines.append(f"{self.further} answers are further ones to a sample that has several; each counts")
        if self.unknown:
            lines.append(f"{self.unknown} answers are to no sample of the benchmark ({self.first_unknown})")
        if self.by_question:
            lines.append(
                f"{self.by_question} answers were matched by picture and question; their ids mean other questions"
            )
        if self.other_question:
            lines.append(
                f"{self.other_question} answers are unscored: the list asks another question under their ids"
                f" ({self.first_other}); check that list and answers are of one version"
            )
        return [*lines, *self.warnings()]

    def warnings(self) -> list[str]:
        """What casts doubt on all figures."""
        if not self.scored == self.equal_truth >= _SUSPICIOUS:
            return []
        return [
            f"warning: all {self.scored} answers equal the list's truth; check that {self.answer_key!r} is the model's"
            " answer, or name its key by --answer-key"
        ]


@dataclass
class Astray:
    """Rows that no sample took: `asking` something else than the sample of their id, or of an `unknown` id."""

    asking: list[Given] = field(default_factory=list)
    unknown: list[Given] = field(default_factory=list)


@dataclass(frozen=True)
class Corrections:
    """Which rows mean another sample than their id says: by place and id, the right id, or None where none is found.

    Of `distrusted` parts of the list no other row counts either. With `by_order`, ids are left aside: they are not the
    list's, but the questions are, one after another.
    """

    ids: Mapping[tuple[str, str | None], str | None] = field(default_factory=dict)
    distrusted: frozenset[str] = frozenset()
    by_order: bool = False

    def applied(self, answers: Iterable[Given], tally: AlignmentCounts) -> Iterator[Given]:
        """The rows with the ids that they mean; what means no sample is counted and left out."""
        tally.ids_fit = not self.by_order
        for given in answers:
            if self.by_order:
                yield given._replace(key=None)
                continue
            place = (given.where, given.key)
            if place not in self.ids and _part(given.key) not in self.distrusted:
                yield given
            elif (key := self.ids.get(place)) is not None:
                tally.by_question += 1
                yield given._replace(key=key)
            else:
                tally.other_question += 1
                if place in self.ids and not tally.first_other:
                    tally.first_other = f"{given.where} asks {_first_line(given.question)!r}"


def match(samples: Samples, answers: Iterable[Given], tally: AlignmentCounts) -> Iterator[tuple[Sample, Answer | None]]:
    """Every sample in order with its answer, None where there is none.

    `samples` is asked again only where answers are left over, to tell repeated from unknown ones.

    Raises:
        InputError: no answer, an answer without an id among ones with, more answers than samples in a file without
            ids, or one to another question there, or no answer that any sample knows.
    """
    reading = iter(answers)
    first = next(reading, None)
    if first is None:
        if tally.other_question:
            raise _all_ask_others(tally)
        raise InputError("the answers are empty; give at least one")
    tally.by_order = first.key is None
    tally.answer_key = first.name
    together = chain([first], reading)
    pairs = _by_order(samples(), together, tally) if tally.by_order else _by_id(samples, together, tally, Astray())
    for sample, given in pairs:
        if given is None:
            yield sample, None
            continue
        tally.scored += 1
        tally.equal_truth += _equals_truth(sample, given.text)
        yield sample, _answer(sample, given)
    if not tally.by_order and tally.missing == tally.samples:
        if tally.other_question:
            raise _all_ask_others(tally)
        last = _last_id(samples)
        known_as = f", whose ids look like {last!r}" if last else ""
        raise InputError(f"no answer is to a sample of the benchmark{known_as} ({tally.first_unknown}); check the ids")


def corrections(samples: Samples, answers: Callable[[], Iterable[Given]]) -> Corrections:
    """What `match` needs to know where rows say what was asked, and it is not what their ids mean.

    A row that asks something else is found by its picture and question, if just one sample has both; so is a row with
    an unknown id where no id fits. Where all questions are the list's, in its order, order decides. Where most rows of
    a part of the list ask something else, the part is numbered otherwise, and those that fit do so by chance.
    """
    if not any(given.question for given in answers()):
        return Corrections()
    first = next(iter(answers()))
    if first.key is None:
        everywhere = all(given.image and given.question for given in answers())
        if not everywhere or _are_in_order(samples, answers):
            return Corrections()  # where they are in no order, `match` says which is the first
        return Corrections({(row.where, None): key for row, key in _by_picture(samples, list(answers()))})
    astray = Astray()
    fits = Counter(
        _part(found.key) for _, found in _by_id(samples, answers(), AlignmentCounts(), astray) if found is not None
    )
    if not astray.asking and (fits or not astray.unknown):
        return Corrections()
    if _are_in_order(samples, answers):
        return Corrections(by_order=True)
    ids = {(row.where, row.key): key for row, key in _by_picture(samples, astray.asking)}
    if not fits:  # ids of another numbering, and not answers to another part of the benchmark
        ids |= {(row.where, row.key): key for row, key in _by_picture(samples, astray.unknown) if key is not None}
    lost = Counter(_part(row.key) for row in astray.asking if ids[row.where, row.key] is None)
    return Corrections(ids, frozenset(part for part, count in lost.items() if count > fits[part]))


def _by_id(
    samples: Samples, answers: Iterable[Given], tally: AlignmentCounts, astray: Astray
) -> Iterator[tuple[Sample, Given | None]]:
    """Each sample with the first row of its id that asks the same; `astray` gets the rows that ask something else."""
    reading = iter(answers)
    waiting: dict[str, list[Given]] = {}
    for sample in samples():
        tally.samples += 1
        key = normal_key(sample.id) or ""
        early = waiting.pop(key, [])
        found = _first_that_fits(sample, early, tally, astray)
        while found is None and (read := next(reading, None)) is not None:
            if read.key is None:
                raise InputError(f"{read.where}: the answer has no id, though others have; give it one")
            if read.key != key:
                waiting.setdefault(read.key, []).append(read)
            elif _fits(sample, read):
                found = read
            else:
                astray.asking.append(read)
        tally.missing += found is None
        yield sample, found
    _left_over(samples, chain(chain.from_iterable(waiting.values()), reading), tally, astray)


def _first_that_fits(sample: Sample, rows: Iterable[Given], tally: AlignmentCounts, astray: Astray) -> Given | None:
    found = None
    for row in rows:
        if not _fits(sample, row):
            astray.asking.append(row)
        elif found is None:
            found = row
        else:
            tally.repeated += 1
    return found


def _left_over(samples: Samples, answers: Iterable[Given], tally: AlignmentCounts, astray: Astray) -> None:
    """Count what no sample took: answers to samples that had one already, and answers to none."""
    known: dict[str, Sample] | None = None
    for given in answers:
        if known is None:
            known = {normal_key(sample.id) or "": sample for sample in samples()}
        sample = known.get(given.key or "")
        if sample is not None and _fits(sample, given):
            tally.repeated += 1
            continue
        if sample is not None:
            astray.asking.append(given)
            continue
        tally.unknown += 1
        tally.first_unknown = tally.first_unknown or f"{given.where} answers {given.key!r}"
        if given.question:
            astray.unknown.append(given)


def _by_order(
    samples: Iterable[Sample], answers: Iterator[Given], tally: AlignmentCounts
) -> Iterator[tuple[Sample, Given | None]]:
    for sample in samples:
        tally.samples += 1
        given = next(answers, None)
        if given is None:
            tally.missing += 1
            yield sample, None
            continue
        if given.key is not None:
            raise InputError(f"{given.where}: the answer has an id, though the first has none; give all of them ids")
        if given.question and sample.prompt and not same_question(sample.prompt, given.question):
            raise InputError(
                f"{given.where}: answers {given.question[:80]!r} where the list asks {sample.prompt[:80]!r};"
                " put the answers in the list's order, or give each its question's id"
            )
        yield sample, given
    if (extra := next(answers, None)) is not None:
        raise InputError(
            f"{extra.where}: there are only {tally.samples} questions, and the answers have no ids to tell which are"
            " too many; give each its question's id"
        )


def _are_in_order(samples: Samples, answers: Callable[[], Iterable[Given]]) -> bool:
    """Whether the rows ask the list's questions one after another, and these questions are not all the same."""
    questions, prompts = iter(samples()), set[str]()
    for given in answers():
        sample = next(questions, None)
        if sample is None or not given.question or not same_question(sample.prompt, given.question):
            return False
        if len(prompts) < 2:
            prompts.add(sample.prompt)
    return len(prompts) > 1


def _by_picture(samples: Samples, astray: list[Given]) -> Iterator[tuple[Given, str | None]]:
    """Each row with the id of the only sample on its picture that asks the same; None where there is not just one."""
    pictures = {given.image for given in astray if given.image}
    there: dict[str, list[Sample]] = {}
    for sample in samples() if pictures else ():
        for name in {picture_name(image) for image in sample.images} & pictures:
            there.setdefault(name, []).append(sample)
    for given in astray:
        alike = [one.id for one in there.get(given.image, ()) if same_question(one.prompt, given.question)]
        alike = [key for key in alike if _part(key) == _part(given.key)] or alike
        yield given, normal_key(alike[0]) if len(alike) == 1 else None


def _part(key: str | None) -> str:
    """The part of a list that an id names before a slash, empty where it names none."""
    part, slash, _ = (key or "").partition("/")
    return part if slash else ""


def _fits(sample: Sample, given: Given) -> bool:
    """Whether a row with a sample's id asks what the sample asks, as far as the row says it."""
    if not given.question or not sample.prompt or sample.task == DESCRIPTION:
        return True
    return same_question(sample.prompt, given.question)


def _equals_truth(sample: Sample, text: str) -> bool:
    """Whether an answer is the list's truth, word for word."""
    truth = [sample.reference, *(sample.truth.get(name) for name in ("answer", "label", "truth"))]
    if isinstance(there := sample.truth.get("there"), bool):
        truth.append("yes" if there else "no")
    answer = text.strip().casefold().removesuffix(".")
    return any(isinstance(one, str) and answer == one.strip().casefold().removesuffix(".") for one in truth)


def _all_ask_others(tally: AlignmentCounts) -> InputError:
    return InputError(
        f"no answer asks what the list asks under its id ({tally.first_other}); check that list and answers are of one"
        " version, and the answers' key (--answer-key); leave out a question that is worded otherwise"
    )


def _last_id(samples: Samples) -> str:
    last = ""
    for sample in samples():
        last = normal_key(sample.id) or ""
    return last


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), text)[:80]


def _answer(sample: Sample, given: Given) -> Answer:
    return Answer.model_construct(
        sample_id=sample.id, cluster=sample.cluster, text=given.text, tokens=given.tokens, finished=given.finished
    )
