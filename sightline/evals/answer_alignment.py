"""Alignment of answers with samples: by id, by order where there are no ids, by image and question where ids fail.

Samples and answers are read side by side, so that files in the order of the samples take no memory; rows that are out
of order are buffered. Every dropped row is counted. A row's question, where it has one, is compared with the sample's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from sightline.errors import InputError
from sightline.evals.answer_reader import AnswerRow, normal_image_name, normal_key
from sightline.evals.questions import same_question
from sightline.records.rows import Answer, Sample

Samples = Callable[[], Iterable[Sample]]
#: The task of samples that are identified by their image alone, whatever the wording of the prompt.
DESCRIPTION = "description"
#: From this many answers on, if all equal the truth, they are probably the truth and not a model's answers.
_SUSPICIOUS = 30


@dataclass
class AlignmentCounts:
    """Counts of aligned, missing and dropped answers; complete once `align_answers` has been read to its end."""

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
    additional: int = 0

    def notes(self) -> list[str]:
        """Notes for the user; empty where every sample has exactly one answer."""
        lines = []
        if self.by_order:
            reason = "have no ids" if self.ids_fit else "have ids of another numbering but ask the list's questions"
            lines.append(f"the answers {reason}; they were matched in the order of the questions")
        if self.missing:
            lines.append(f"{self.missing} of {self.samples} samples have no answer and are unscored")
        if self.repeated:
            lines.append(f"{self.repeated} answers repeat a sample that already has one; the first is scored")
        if self.additional:
            lines.append(f"{self.additional} answers are to samples with several answers; each is scored")
        if self.unknown:
            lines.append(f"{self.unknown} answers match no sample of the benchmark ({self.first_unknown})")
        if self.by_question:
            lines.append(
                f"{self.by_question} answers were matched by image and question; their ids belong to other questions"
            )
        if self.other_question:
            lines.append(
                f"{self.other_question} answers are unscored: the list has another question under their ids"
                f" ({self.first_other}); check that list and answers are of the same version"
            )
        return [*lines, *self.warnings()]

    def warnings(self) -> list[str]:
        """Warnings that cast doubt on every metric."""
        if not self.scored == self.equal_truth >= _SUSPICIOUS:
            return []
        return [
            f"warning: all {self.scored} answers equal the list's truth; check that {self.answer_key!r} is the model's"
            " answer, or name its key with --answer-key"
        ]


@dataclass
class UnmatchedRows:
    """Rows without a sample: `other_question` differ from the question of their id, `unknown` have an unknown id."""

    other_question: list[AnswerRow] = field(default_factory=list)
    unknown: list[AnswerRow] = field(default_factory=list)


@dataclass(frozen=True)
class Corrections:
    """Corrected ids of rows whose id names the wrong sample, by place and id; None where no sample was found.

    In `distrusted` parts of the list, all other rows are dropped too. With `by_order`, ids are ignored: they are not
    the list's, but the questions are, in the list's order.
    """

    ids: Mapping[tuple[str, str | None], str | None] = field(default_factory=dict)
    distrusted: frozenset[str] = frozenset()
    by_order: bool = False

    def apply(self, answers: Iterable[AnswerRow], tally: AlignmentCounts) -> Iterator[AnswerRow]:
        """The rows with corrected ids; rows without a sample are counted and dropped."""
        tally.ids_fit = not self.by_order
        for row in answers:
            if self.by_order:
                yield row._replace(key=None)
                continue
            place = (row.where, row.key)
            if place not in self.ids and _part(row.key) not in self.distrusted:
                yield row
            elif (key := self.ids.get(place)) is not None:
                tally.by_question += 1
                yield row._replace(key=key)
            else:
                tally.other_question += 1
                if place in self.ids and not tally.first_other:
                    tally.first_other = f"{row.where} asks {_first_line(row.question)!r}"


def align_answers(
    samples: Samples, answers: Iterable[AnswerRow], tally: AlignmentCounts
) -> Iterator[tuple[Sample, Answer | None]]:
    """Every sample in order with its answer, None where there is none.

    `samples` is read again only where answers are left over, to distinguish repeated from unknown ones.

    Raises:
        InputError: there is no answer or none matches a sample, only some have an id, or a file without ids has too
            many answers or one to another question.
    """
    reading = iter(answers)
    first = next(reading, None)
    if first is None:
        if tally.other_question:
            raise _wrong_questions_error(tally)
        raise InputError("the answers are empty; give at least one")
    tally.by_order = first.key is None
    tally.answer_key = first.name
    together = chain([first], reading)
    pairs = (
        _match_by_order(samples(), together, tally)
        if tally.by_order
        else _match_by_id(samples, together, tally, UnmatchedRows())
    )
    for sample, row in pairs:
        if row is None:
            yield sample, None
            continue
        tally.scored += 1
        tally.equal_truth += _equals_truth(sample, row.text)
        yield sample, _answer(sample, row)
    if not tally.by_order and tally.missing == tally.samples:
        if tally.other_question:
            raise _wrong_questions_error(tally)
        last = _last_id(samples)
        known_as = f", whose ids look like {last!r}" if last else ""
        raise InputError(
            f"no answer matches a sample of the benchmark{known_as} ({tally.first_unknown}); check the ids"
        )


def find_corrections(samples: Samples, answers: Callable[[], Iterable[AnswerRow]]) -> Corrections:
    """Corrections for `align_answers` where rows repeat their question and it differs from the question of their id.

    Such a row is matched by image and question, if exactly one sample has both; so is a row with an unknown id where
    no id fits. If the questions are the list's in the list's order, order decides. If most rows of a part of the list
    have another question, that part is numbered differently and the remaining rows fit by chance.
    """
    if not any(answer.question for answer in answers()):
        return Corrections()
    first = next(iter(answers()))
    if first.key is None:
        everywhere = all(answer.image and answer.question for answer in answers())
        if not everywhere or _are_in_order(samples, answers):
            return Corrections()  # if they are out of order, `align_answers` reports the first
        return Corrections({(row.where, None): key for row, key in _match_by_image(samples, list(answers()))})
    unmatched = UnmatchedRows()
    fits = Counter(
        _part(found.key)
        for _, found in _match_by_id(samples, answers(), AlignmentCounts(), unmatched)
        if found is not None
    )
    if not unmatched.other_question and (fits or not unmatched.unknown):
        return Corrections()
    if _are_in_order(samples, answers):
        return Corrections(by_order=True)
    ids = {(row.where, row.key): key for row, key in _match_by_image(samples, unmatched.other_question)}
    if not fits:  # ids of another numbering, and not answers to another part of the benchmark
        ids |= {
            (row.where, row.key): key for row, key in _match_by_image(samples, unmatched.unknown) if key is not None
        }
    lost = Counter(_part(row.key) for row in unmatched.other_question if ids[row.where, row.key] is None)
    return Corrections(ids, frozenset(part for part, count in lost.items() if count > fits[part]))


def _match_by_id(
    samples: Samples, answers: Iterable[AnswerRow], tally: AlignmentCounts, unmatched: UnmatchedRows
) -> Iterator[tuple[Sample, AnswerRow | None]]:
    """Each sample with the first row of its id and question; `unmatched` collects the other rows."""
    reading = iter(answers)
    waiting: dict[str, list[AnswerRow]] = {}
    for sample in samples():
        tally.samples += 1
        key = normal_key(sample.id) or ""
        early = waiting.pop(key, [])
        found = _first_matching(sample, early, tally, unmatched)
        while found is None and (read := next(reading, None)) is not None:
            if read.key is None:
                raise InputError(f"{read.where}: the answer has no id, but others do; give it one")
            if read.key != key:
                waiting.setdefault(read.key, []).append(read)
            elif _asks_same(sample, read):
                found = read
            else:
                unmatched.other_question.append(read)
        tally.missing += found is None
        yield sample, found
    _count_unmatched(samples, chain(chain.from_iterable(waiting.values()), reading), tally, unmatched)


def _first_matching(
    sample: Sample, rows: Iterable[AnswerRow], tally: AlignmentCounts, unmatched: UnmatchedRows
) -> AnswerRow | None:
    found = None
    for row in rows:
        if not _asks_same(sample, row):
            unmatched.other_question.append(row)
        elif found is None:
            found = row
        else:
            tally.repeated += 1
    return found


def _count_unmatched(
    samples: Samples, answers: Iterable[AnswerRow], tally: AlignmentCounts, unmatched: UnmatchedRows
) -> None:
    """Count the remaining rows: repeated answers, and answers without a sample."""
    known: dict[str, Sample] | None = None
    for row in answers:
        if known is None:
            known = {normal_key(sample.id) or "": sample for sample in samples()}
        sample = known.get(row.key or "")
        if sample is not None and _asks_same(sample, row):
            tally.repeated += 1
            continue
        if sample is not None:
            unmatched.other_question.append(row)
            continue
        tally.unknown += 1
        tally.first_unknown = tally.first_unknown or f"{row.where} answers {row.key!r}"
        if row.question:
            unmatched.unknown.append(row)


def _match_by_order(
    samples: Iterable[Sample], answers: Iterator[AnswerRow], tally: AlignmentCounts
) -> Iterator[tuple[Sample, AnswerRow | None]]:
    for sample in samples:
        tally.samples += 1
        row = next(answers, None)
        if row is None:
            tally.missing += 1
            yield sample, None
            continue
        if row.key is not None:
            raise InputError(f"{row.where}: the answer has an id, though the first has none; give all of them ids")
        if row.question and sample.prompt and not same_question(sample.prompt, row.question):
            raise InputError(
                f"{row.where}: answers {row.question[:80]!r} where the list asks {sample.prompt[:80]!r};"
                " put the answers in the list's order, or give each the id of its question"
            )
        yield sample, row
    if (extra := next(answers, None)) is not None:
        raise InputError(
            f"{extra.where}: there are only {tally.samples} questions, and without ids it is unclear which answers are"
            " extra; give each the id of its question"
        )


def _are_in_order(samples: Samples, answers: Callable[[], Iterable[AnswerRow]]) -> bool:
    """Whether the rows have the list's questions in the list's order, and these questions are not all the same."""
    questions, prompts = iter(samples()), set[str]()
    for row in answers():
        sample = next(questions, None)
        if sample is None or not row.question or not same_question(sample.prompt, row.question):
            return False
        if len(prompts) < 2:
            prompts.add(sample.prompt)
    return len(prompts) > 1


def _match_by_image(samples: Samples, unmatched: list[AnswerRow]) -> Iterator[tuple[AnswerRow, str | None]]:
    """Each row with the id of the only sample with its image and question; None unless there is exactly one."""
    pictures = {row.image for row in unmatched if row.image}
    there: dict[str, list[Sample]] = {}
    for sample in samples() if pictures else ():
        for name in {normal_image_name(image) for image in sample.images} & pictures:
            there.setdefault(name, []).append(sample)
    for row in unmatched:
        alike = [one.id for one in there.get(row.image, ()) if same_question(one.prompt, row.question)]
        alike = [key for key in alike if _part(key) == _part(row.key)] or alike
        yield row, normal_key(alike[0]) if len(alike) == 1 else None


def _part(key: str | None) -> str:
    """The part of the list: the id's prefix before a slash, empty where there is none."""
    part, slash, _ = (key or "").partition("/")
    return part if slash else ""


def _asks_same(sample: Sample, row: AnswerRow) -> bool:
    """Whether the row's question is the sample's; True where either has none."""
    if not row.question or not sample.prompt or sample.task == DESCRIPTION:
        return True
    return same_question(sample.prompt, row.question)


def _equals_truth(sample: Sample, text: str) -> bool:
    """Whether an answer equals the list's truth up to case and a final full stop."""
    truth = [sample.reference, *(sample.truth.get(name) for name in ("answer", "label", "truth"))]
    if isinstance(there := sample.truth.get("there"), bool):
        truth.append("yes" if there else "no")
    answer = text.strip().casefold().removesuffix(".")
    return any(isinstance(one, str) and answer == one.strip().casefold().removesuffix(".") for one in truth)


def _wrong_questions_error(tally: AlignmentCounts) -> InputError:
    return InputError(
        f"no answer has the question that the list has under its id ({tally.first_other}); check that list and answers"
        " are of the same version, and the answers' key (--answer-key); remove the question if it is only reworded"
    )


def _last_id(samples: Samples) -> str:
    last = ""
    for sample in samples():
        last = normal_key(sample.id) or ""
    return last


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), text)[:80]


def _answer(sample: Sample, row: AnswerRow) -> Answer:
    return Answer.model_construct(
        sample_id=sample.id,
        cluster=sample.cluster,
        text=row.text,
        tokens=row.tokens,
        finished=row.finished,
    )
