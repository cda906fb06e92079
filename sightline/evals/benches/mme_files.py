"""MME's files: the release with a text file a picture, or result files with a line a question; nothing is scored here.

`mme` has the rule. Which of the two layouts a folder has is seen from what lies there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.registry import get_entry

#: Where the release and its result files may lie below the folder that a user names.
_RELEASES = ("", "MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark_release_version")
_RESULTS = ("", "eval_tool/Your_Results", "Your_Results")
_PICTURES = (".jpg", ".png", ".jpeg")
#: What lists and models' prompts put around a question.
_INSTRUCTIONS = ("Please answer yes or no.", "Answer the question using a single word or phrase.")
_TRUTHS = ("yes", "no")


@dataclass(frozen=True)
class Question:
    """One question; `picture` is "TASK/STEM", `image` the file, relative to the folder."""

    task: str
    picture: str
    number: int
    image: str
    text: str
    truth: str

    @property
    def key(self) -> str:
        """The id of its sample."""
        return f"{self.picture}/{self.number}"


def bare(text: str) -> str:
    """A question without instructions and white space that differs, to find it by."""
    for instruction in _INSTRUCTIONS:
        text = text.replace(instruction, "")
    return " ".join(text.split())


def read_questions(benchmark: str, folder: Path, tasks: Sequence[str]) -> list[Question]:
    """All questions of the sub-tasks that are there, in their order.

    Raises:
        InputError: neither layout is there, a line is none of a question, or a picture has not two questions.
    """
    for place in _RELEASES:
        found = [question for task in tasks for question in _of_release(folder, folder / place / task, task)]
        if found:
            return _in_pairs(found, folder)
    for place in _RESULTS:
        rows = [row for _, row in file_rows(folder / place, tasks)] if (folder / place).is_dir() else []
        if rows:
            return _in_pairs(list(_of_results(rows)), folder)
    raise InputError(
        f"{benchmark} needs the folders of its sub-tasks ({tasks[0]}, ...) or their result files ({tasks[0]}.txt, ...)"
        f" in {folder}, which are not there; its owners publish them at {get_entry(benchmark).files}"
    )


def file_rows(path: Path, tasks: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of TASK.txt, each with its place: picture, question, truth, and the answer where there is one.

    Raises:
        InputError: a line that has not three or four fields, or whose truth is neither yes nor no.
    """
    for task in tasks:
        file = path / f"{task}.txt"
        if not file.is_file():
            continue
        for number, line in enumerate(_lines(file), 1):
            where, fields = f"{file} line {number}", line.split("\t")
            if len(fields) not in (3, 4) or fields[2].lower() not in _TRUTHS:
                raise InputError(
                    f"{where}: not picture, question, Yes or No, and answer, with tabs between; an answer must hold"
                    " neither tab nor line break"
                )
            row = {"question_id": f"{task}/{fields[0]}", "question": fields[1], "truth": fields[2].lower()}
            yield where, {**row, "answer": fields[3]} if len(fields) == 4 else row


def _of_release(folder: Path, place: Path, task: str) -> Iterator[Question]:
    """The questions of one sub-task: its pictures beside its texts, or in folders of their own."""
    apart = (place / "images").is_dir()
    texts = place / "questions_answers_YN" if apart else place
    pictures = place / "images" if apart else place
    for file in sorted(texts.glob("*.txt")):
        image = next(
            (pictures / (file.stem + end) for end in _PICTURES if (pictures / (file.stem + end)).is_file()), None
        )
        image = image or pictures / (file.stem + _PICTURES[0])
        for number, line in enumerate(_lines(file)):
            fields = line.strip().split("\t")
            if len(fields) != 2 or fields[1].lower() not in _TRUTHS:
                raise InputError(
                    f"{file} line {number + 1}: not a question, a tab, and Yes or No; fetch the file again."
                )
            yield Question(
                task, f"{task}/{file.stem}", number, image.relative_to(folder).as_posix(), fields[0], fields[1].lower()
            )


def _of_results(rows: list[dict[str, Any]]) -> Iterator[Question]:
    seen: dict[str, int] = {}
    for row in rows:
        task, _, name = row["question_id"].partition("/")
        picture = f"{task}/{name.split('.')[0]}"
        number = seen[picture] = seen.get(picture, -1) + 1
        yield Question(task, picture, number, row["question_id"], row["question"], row["truth"])


def _in_pairs(questions: list[Question], folder: Path) -> list[Question]:
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.picture] = counts.get(question.picture, 0) + 1
    odd = next((picture for picture, found in counts.items() if found != 2), None)
    if odd is not None:
        raise InputError(f"{folder}: picture {odd} has {counts[odd]} questions and needs two; fetch its files again.")
    return questions


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); fetch the file again.") from error
