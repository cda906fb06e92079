"""Samples -> conversations about a picture: the questions, and for each turn the answers that there are to choose from.

Samples that ask the same questions of the same pictures are candidates of one conversation. Which is better is
`scoring`; nothing here is judged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.models.requests import JudgeInput, Prefix
from sightline.records import IMAGE, Sample, Turn

#: What a question is the answer to, where a reward model grades questions. Our own words.
QUESTION_REQUEST = "Ask a question about the image."


@dataclass(frozen=True)
class QuestionSet:
    """One turn of a sample: what was said before it, the question, and the answer."""

    history: tuple[Turn, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """The candidates of one conversation, in the order of the file; they differ in their answers alone."""

    candidates: tuple[Sample, ...]

    @property
    def id(self) -> str:
        """The first candidate's."""
        return self.candidates[0].id

    @property
    def task(self) -> str:
        """The type of the instruction: conversation, detail, complex."""
        return self.candidates[0].task

    @property
    def questions(self) -> list[str]:
        """What is asked, turn by turn."""
        return [asked.question for asked in turns_of(self.candidates[0])]


def conversations(samples: Iterable[Sample]) -> list[Conversation]:
    """The conversations in the order of their first samples. Memory holds all samples."""
    found: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        key = (sample.images, *(asked.question for asked in turns_of(sample)))
        found.setdefault(key, []).append(sample)
    return [Conversation(tuple(candidates)) for candidates in found.values()]


def turns_of(sample: Sample) -> list[QuestionSet]:
    """Every question of a sample that has an answer, the prompt's last."""
    told = (*sample.history, Turn(role="user", text=sample.prompt), Turn(role="assistant", text=sample.reference or ""))
    return [
        QuestionSet(told[: place - 1], told[place - 1].text, turn.text)
        for place, turn in enumerate(told)
        if turn.role == "assistant" and place and told[place - 1].role == "user"
    ]


def with_answers(sample: Sample, answers: Sequence[str]) -> Sample:
    """The sample with other answers to its turns, in order."""
    new = iter(answers)
    history, asked = [], False
    for turn in sample.history:
        history.append(turn.model_copy(update={"text": next(new)}) if turn.role == "assistant" and asked else turn)
        asked = turn.role == "user"
    return sample.model_copy(update={"history": tuple(history), "reference": next(new)})


def one_by_one(sample: Sample) -> list[Sample]:
    """A sample for each turn, the turns before it as history, as `import llava-instruct` makes with `turns=every`."""
    turns = turns_of(sample)
    return [
        sample.model_copy(
            update={
                "id": f"{sample.id}-{number}" if len(turns) > 1 else sample.id,
                "history": asked.history,
                "prompt": asked.question,
                "reference": asked.answer,
            }
        )
        for number, asked in enumerate(turns, 1)
    ]


def question_judged(sample: Sample, folder: Path, question: str) -> JudgeInput:
    """A question given the picture, as the answer to `QUESTION_REQUEST`: what f(I, Q) looks at."""
    pictures = tuple(folder / image for image in sample.images)
    return JudgeInput(
        Prefix(pictures, QUESTION_REQUEST, media=sample.media), question.replace(IMAGE, "").strip(), None, sample.truth
    )


def answer_judged(sample: Sample, folder: Path, asked: QuestionSet, answer: str) -> JudgeInput:
    """An answer given picture and question, after what was said before: what g(I, Q, A) looks at.

    The reference is what the sample's truth says of the question: its own reference is one of those to be judged.
    """
    pictures = tuple(folder / image for image in sample.images)
    reference = (sample.truth.get("answers") or {}).get(asked.question)
    return JudgeInput(Prefix(pictures, asked.question, asked.history, sample.media), answer, reference, sample.truth)
