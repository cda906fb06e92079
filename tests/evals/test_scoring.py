"""Alignment of answers with samples, group values by `combine`, and the values measured of every answer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.answer_alignment import AlignmentCounts, align_answers
from sightline.evals.answer_reader import AnswerRow
from sightline.evals.answer_stats import answer_values, is_refusal, repeated_ngrams
from sightline.evals.benchmark import AnyMetric, mean
from sightline.evals.scoring import estimate_scores, score_all
from sightline.records.rows import Answer, Sample, Score


@dataclass(frozen=True)
class Pairs:
    """Two questions an image; `both` is 1 where both answers are right, on the second score."""

    name: str = "pairs"
    folder: Path = Path()
    max_new_tokens: int = 4

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return {
            "right": mean("right", "Right", higher_is_better=True),
            "both": mean("both", "Both", higher_is_better=True, group="picture"),
        }

    def samples(self) -> Iterator[Sample]:
        for number in range(6):
            yield Sample(id=str(number), prompt=f"Question {number}?", cluster=f"p{number // 2}")

    def score(self, sample: Sample, answer: Answer) -> Score:
        values: dict[str, float | None] = {"right": float(answer.text == "yes")}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values)

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        before: float | None = None
        for number, score in enumerate(scores):
            right = score.values["right"]
            if number % 2 == 0:
                before = right
                yield score
                continue
            both = None if right is None or before is None else right * before
            yield score.model_copy(update={"groups": ("picture",), "values": {**score.values, "both": both}})


def given(key: str | None, text: str = "yes", **more: str) -> AnswerRow:
    return AnswerRow(where=f"a.jsonl line {key}", key=key, text=text, **more)  # type: ignore[arg-type]


def texts(answers: list[AnswerRow], tally: AlignmentCounts) -> list[str | None]:
    return [None if a is None else a.text for _, a in align_answers(Pairs().samples, answers, tally)]


def test_group_values_count_groups_and_a_missing_answer_unscores_its_group() -> None:
    answers = [given("0"), given("1"), given("2"), given("3", "no"), given("4")]
    benchmark = Pairs()
    estimates = estimate_scores(
        benchmark, score_all(benchmark, align_answers(benchmark.samples, answers, AlignmentCounts())), resamples=100
    )
    assert (estimates["both"].value, estimates["both"].n, estimates["both"].unscored) == (0.5, 2, 1)
    assert (estimates["right"].value, estimates["right"].n, estimates["right"].unscored) == (0.8, 5, 1)
    assert (estimates["words"].value, estimates["words"].n, estimates["words"].unscored) == (1.0, 5, 1)
    assert (estimates["tokens"].value, estimates["tokens"].n, estimates["tokens"].unscored) == (None, 0, 6)


def test_answers_find_their_samples_in_any_order_and_nothing_is_dropped_unsaid() -> None:
    tally = AlignmentCounts()
    answers = [given("5", "e"), given("1", "a"), given("1", "b"), given("9", "x"), given("0", "z"), given("0", "y")]
    assert texts(answers, tally) == ["z", "a", None, None, None, "e"]
    assert (tally.samples, tally.missing, tally.repeated, tally.unknown) == (6, 3, 2, 1)
    assert tally.notes() == [
        "3 of 6 samples have no answer and are unscored",
        "2 answers repeat a sample that already has one; the first is scored",
        "1 answers match no sample of the benchmark (a.jsonl line 9 answers '9')",
    ]


def test_a_file_without_ids_goes_by_order() -> None:
    tally = AlignmentCounts()
    assert texts([given(None, t) for t in "abc"], tally) == ["a", "b", "c", None, None, None]
    assert tally.by_order and tally.missing == 3
    assert texts([given(None, "a", question="QUESTION  0? Answer briefly.")], AlignmentCounts())[0] == "a"


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([], "the answers are empty"),
        ([given("7"), given("8")], "no answer matches a sample of the benchmark, whose ids look like '5'"),
        ([given("0"), given(None)], "the answer has no id, but others do"),
        ([given(None), given("1")], "the answer has an id, though the first has none"),
        ([given(None)] * 7, "there are only 6 questions"),
        ([given(None, question="Something else?")], "answers 'Something else\\?' where the list asks 'Question 0\\?'"),
    ],
)
def test_mistakes_are_one_sentence(answers: list[AnswerRow], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        texts(answers, AlignmentCounts())


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I cannot help with that.", True),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m unable to see the picture.", True),
        ("As an AI language model, I have no eyes.", True),
        ("I do not have access to the image.", True),
        ("No image was provided.", True),
        ("Two people who look sorry stand by a canal.", False),
        ("I see a can on the table.", False),
        ("I do not see a cup.", False),
        ("x" * 300 + " I'm sorry", False),
    ],
)
def test_refusals(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused


def test_repetition_by_hand() -> None:
    """ "a b c d a b c d": runs of four abcd, bcda, cdab, dabc, abcd: one of five was said before."""
    assert repeated_ngrams(["a", "b", "c", "d", "a", "b", "c", "d"]) == (1, 5)
    assert repeated_ngrams(["a", "b", "c"]) == (0, 0)
    assert repeated_ngrams(["no"] * 10) == (6, 7)


def test_values_of_an_answer() -> None:
    answer = Answer(sample_id="a", cluster="", text=" Yes, two cups.", tokens=5, finished=False)
    values = answer_values(answer)
    assert (values["answer_tokens"], values["answer_words"], values["answer_unfinished"]) == (5.0, 3.0, 1.0)
    assert (values["answer_yes"], values["answer_no"]) == (1.0, 0.0)
    other = answer_values(Answer(sample_id="a", cluster="", text="**No**"))
    assert (other["answer_yes"], other["answer_no"], other["answer_tokens"]) == (0.0, 1.0, None)
    assert answer_values(Answer(sample_id="a", cluster="", text="Nothing"))["answer_no"] == 0.0
