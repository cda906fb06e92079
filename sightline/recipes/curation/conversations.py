"""Conversations about an image: the questions and, per turn, the candidate answers.

Samples that ask the same questions about the same images are candidates of one conversation. `scoring` ranks them;
nothing is judged here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.models.requests import JudgeInput, Prefix
from sightline.records import IMAGE, Sample, Turn

#: The request that a question answers when a reward model grades questions; our own wording.
QUESTION_REQUEST = "Ask a question about the image."


@dataclass(frozen=True)
class QuestionTurn:
    """One turn of a sample: the history before it, the question, and the answer."""

    history: tuple[Turn, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """The candidates of one conversation, in the order of the file; they differ only in their answers."""

    candidates: tuple[Sample, ...]

    @property
    def id(self) -> str:
        """The first candidate's id."""
        return self.candidates[0].id

    @property
    def task(self) -> str:
        """The type of the instruction: conversation, detail, complex."""
        return self.candidates[0].task

    @property
    def questions(self) -> list[str]:
        """The questions, turn by turn."""
        return [turn.question for turn in split_turns(self.candidates[0])]


def group_conversations(samples: Iterable[Sample]) -> list[Conversation]:
    """The conversations in the order of their first samples. Holds all samples in memory."""
    found: dict[tuple[object, ...], list[Sample]] = {}
    for sample in samples:
        key = (sample.images, *(turn.question for turn in split_turns(sample)))
        found.setdefault(key, []).append(sample)
    return [Conversation(tuple(candidates)) for candidates in found.values()]


def split_turns(sample: Sample) -> list[QuestionTurn]:
    """Every question of a sample that has an answer, the prompt's last."""
    turns = (
        *sample.history,
        Turn(role="user", text=sample.prompt),
        Turn(role="assistant", text=sample.reference or ""),
    )
    return [
        QuestionTurn(turns[: place - 1], turns[place - 1].text, turn.text)
        for place, turn in enumerate(turns)
        if turn.role == "assistant" and place and turns[place - 1].role == "user"
    ]


def replace_answers(sample: Sample, answers: Sequence[str]) -> Sample:
    """The sample with other answers to its turns, in order."""
    new = iter(answers)
    history, is_reply = [], False
    for turn in sample.history:
        history.append(turn.model_copy(update={"text": next(new)}) if turn.role == "assistant" and is_reply else turn)
        is_reply = turn.role == "user"
    return sample.model_copy(update={"history": tuple(history), "reference": next(new)})


def split_samples(sample: Sample) -> list[Sample]:
    """A sample for each turn, with the earlier turns as history, like `import llava-instruct` with `turns=every`."""
    turns = split_turns(sample)
    return [
        sample.model_copy(
            update={
                "id": f"{sample.id}-{number}" if len(turns) > 1 else sample.id,
                "history": turn.history,
                "prompt": turn.question,
                "reference": turn.answer,
            }
        )
        for number, turn in enumerate(turns, 1)
    ]


def question_input(sample: Sample, folder: Path, question: str) -> JudgeInput:
    """A question about the image, as the answer to `QUESTION_REQUEST`: the input of f(I, Q)."""
    pictures = tuple(folder / image for image in sample.images)
    return JudgeInput(
        Prefix(pictures, QUESTION_REQUEST, media=sample.media), question.replace(IMAGE, "").strip(), None, sample.truth
    )


def answer_input(sample: Sample, folder: Path, turn: QuestionTurn, answer: str) -> JudgeInput:
    """An answer to image, question and history: the input of g(I, Q, A).

    The reference is the truth's answer to the question, because the sample's own reference is one of the judged
    answers.
    """
    pictures = tuple(folder / image for image in sample.images)
    reference = (sample.truth.get("answers") or {}).get(turn.question)
    return JudgeInput(Prefix(pictures, turn.question, turn.history, sample.media), answer, reference, sample.truth)
