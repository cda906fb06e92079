"""MME (Fu et al. 2023, arXiv 2306.13394): two yes/no questions on each image, in fourteen sub-tasks.

The rule is the owners' `calculation.py`: the score of a sub-task is its accuracy in percent, plus the percentage of
images with both questions right. The questions are read from the release or from result files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Derived, count, mean
from sightline.evals.registry import get_entry
from sightline.evals.yes_no import both_right
from sightline.records.rows import Answer, Sample, Score

#: Folders of the release and its result files, below the user's folder.
_RELEASES = ("", "MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark_release_version")
_RESULTS = ("", "eval_tool/Your_Results", "Your_Results")
_PICTURES_MME_FILES = (".jpg", ".png", ".jpeg")
#: Instructions that lists and prompts add to a question.
_INSTRUCTIONS = ("Please answer yes or no.", "Answer the question using a single word or phrase.")
_TRUTHS = ("yes", "no")


@dataclass(frozen=True)
class MMEQuestion:
    """One question; `picture` is "TASK/STEM", `image` the file, relative to the folder."""

    task: str
    picture: str
    number: int
    image: str
    text: str
    truth: str

    @property
    def key(self) -> str:
        """The id of the sample."""
        return f"{self.picture}/{self.number}"


def comparable_text(text: str) -> str:
    """A question without instructions and with normalized white space, for comparison."""
    for instruction in _INSTRUCTIONS:
        text = text.replace(instruction, "")
    return " ".join(text.split())


def read_questions(benchmark: str, folder: Path, tasks: Sequence[str]) -> list[MMEQuestion]:
    """All questions of the sub-tasks in the folder, in order.

    Raises:
        InputError: the folder has neither layout, a line is not a question, or an image does not have two questions.
    """
    for place in _RELEASES:
        found = [question for task in tasks for question in _read_release(folder, folder / place / task, task)]
        if found:
            return _check_pairs(found, folder)
    for place in _RESULTS:
        rows = [row for _, row in result_rows(folder / place, tasks)] if (folder / place).is_dir() else []
        if rows:
            return _check_pairs(list(_read_results(rows)), folder)
    raise InputError(
        f"{benchmark} needs the folders of its sub-tasks ({tasks[0]}, ...) or their result files ({tasks[0]}.txt, ...)"
        f" in {folder}, which has neither; its owners publish them at {get_entry(benchmark).files}"
    )


def result_rows(path: Path, tasks: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of TASK.txt, each with its place: image, question, truth, and the answer if there is one.

    Raises:
        InputError: a line does not have three or four fields, or its truth is neither yes nor no.
    """
    for task in tasks:
        file = path / f"{task}.txt"
        if not file.is_file():
            continue
        for number, line in enumerate(_lines(file), 1):
            where, fields = f"{file} line {number}", line.split("\t")
            if len(fields) not in (3, 4) or fields[2].lower() not in _TRUTHS:
                raise InputError(
                    f"{where}: give picture, question, Yes or No, and answer, separated by tabs; an answer must contain"
                    " no tab or line break"
                )
            row = {"question_id": f"{task}/{fields[0]}", "question": fields[1], "truth": fields[2].lower()}
            yield where, {**row, "answer": fields[3]} if len(fields) == 4 else row


def _read_release(folder: Path, place: Path, task: str) -> Iterator[MMEQuestion]:
    """The questions of one sub-task, with images beside the texts or in a separate folder."""
    apart = (place / "images").is_dir()
    texts = place / "questions_answers_YN" if apart else place
    pictures = place / "images" if apart else place
    for file in sorted(texts.glob("*.txt")):
        image = next(
            (pictures / (file.stem + end) for end in _PICTURES_MME_FILES if (pictures / (file.stem + end)).is_file()),
            None,
        )
        image = image or pictures / (file.stem + _PICTURES_MME_FILES[0])
        for number, line in enumerate(_lines(file)):
            fields = line.strip().split("\t")
            if len(fields) != 2 or fields[1].lower() not in _TRUTHS:
                raise InputError(
                    f"{file} line {number + 1} is not a question, a tab, and Yes or No; fetch the file again."
                )
            yield MMEQuestion(
                task, f"{task}/{file.stem}", number, image.relative_to(folder).as_posix(), fields[0], fields[1].lower()
            )


def _read_results(rows: list[dict[str, Any]]) -> Iterator[MMEQuestion]:
    seen: dict[str, int] = {}
    for row in rows:
        task, _, name = row["question_id"].partition("/")
        picture = f"{task}/{name.split('.')[0]}"
        number = seen[picture] = seen.get(picture, -1) + 1
        yield MMEQuestion(task, picture, number, row["question_id"], row["question"], row["truth"])


def _check_pairs(questions: list[MMEQuestion], folder: Path) -> list[MMEQuestion]:
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.picture] = counts.get(question.picture, 0) + 1
    odd = next((picture for picture, found in counts.items() if found != 2), None)
    if odd is not None:
        raise InputError(f"{folder}: picture {odd} has {counts[odd]} questions but needs two; fetch its files again.")
    return questions


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); fetch the file again.") from error


PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
#: Suffix of a sub-task's name in the group of its images, each counted once.
_PICTURES = "+"


def mme(name: str, options: BenchmarkOptions) -> "MME":
    """The benchmark's factory."""
    return MME(name, options)


@dataclass(frozen=True)
class MME:
    """2,374 questions on 1,187 images."""

    name: str
    options: BenchmarkOptions
    max_new_tokens: int = 16

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @cached_property
    def _questions(self) -> list[MMEQuestion]:
        found = read_questions(self.name, self.options.folder, (*PERCEPTION, *COGNITION))
        pictures = dict.fromkeys(question.picture for question in found)
        kept = set(list(pictures)[: self.options.limit])
        return [question for question in found if question.picture in kept]

    @cached_property
    def _by_question(self) -> dict[tuple[str, str], str]:
        return {(question.picture, comparable_text(question.text)): question.key for question in self._questions}

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        present = {question.task for question in self._questions}
        parts = {"perception": PERCEPTION, "cognition": COGNITION}
        tasks = {part: [task for task in names if task in present] for part, names in parts.items()}
        totals: dict[str, AnyMetric] = {
            part: _total(part.capitalize(), len(parts[part]), tasks[part]) for part in parts if tasks[part]
        }
        single: dict[str, AnyMetric] = {}
        for task in (*tasks["perception"], *tasks["cognition"]):
            single |= _task_metrics(task)
        overall = {"total": _sum("Perception and cognition", tuple(totals), primary=True)}
        other = count(DECIDED_BY_QUIRK, "Answers that are neither yes nor no (wrong)")
        return {**single, **totals, **overall, "other": other}

    def samples(self) -> Iterator[Sample]:
        for question in self._questions:
            yield Sample(
                id=question.key,
                images=(question.image,),
                prompt=question.text,
                reference=question.truth,
                task="yes-no",
                cluster=question.picture,
                truth={"answer": question.truth, "task": question.task},
            )

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        """The sample of a row by image and question; LLaVA's files have the image's name as the question's id."""
        place, prompt = row.get("question_id", row.get("image")), row.get("prompt") or row.get("question")
        if not isinstance(place, str) or not isinstance(prompt, str):
            return None
        picture = f"{place.split('/')[0]}/{place.split('/')[-1].split('.')[0]}"
        return self._by_question.get((picture, comparable_text(prompt)))

    def answer_rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of a folder of result files, `TASK.txt`, as read by the official script."""
        return result_rows(path, (*PERCEPTION, *COGNITION))

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.truth["task"],)

    def score(self, sample: Sample, answer: Answer) -> Score:
        parsed = yes_no_other(answer.text)
        values: dict[str, float | None] = {
            "right": float(parsed == sample.truth["answer"]),
            "both_right": None,
            DECIDED_BY_QUIRK: float(parsed == "other"),
        }
        details = {"parsed": parsed, "truth": sample.truth["answer"]}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Add to the second question of an image whether both are right."""
        return both_right(
            scores, "right", "both_right", lambda score: tuple(f"{task}{_PICTURES}" for task in score.groups)
        )


def yes_no_other(text: str) -> str:
    """The official rule: "yes", else "no", anywhere in the first four characters in lower case; otherwise "other".

    So "know" is a no, and "yes" after two spaces is neither.
    """
    start = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def _task_metrics(task: str) -> dict[str, AnyMetric]:
    name = task.replace("_", " ")
    return {
        f"{task}_acc": mean("right", f"{name}: accuracy", higher_is_better=True, group=task),
        f"{task}_acc_plus": mean(
            "both_right", f"{name}: pictures with both right", higher_is_better=True, group=task + _PICTURES
        ),
        task: _sum(f"{name}: score", (f"{task}_acc", f"{task}_acc_plus"), weight=100.0),
    }


def _sum(label: str, parts: tuple[str, ...], *, weight: float = 1.0, primary: bool = False) -> Derived:
    return Derived(
        label=label,
        kind="linear",
        parts=dict.fromkeys(parts, weight),
        higher_is_better=True,
        unit="number",
        primary=primary,
    )


def _total(label: str, complete: int, tasks: list[str]) -> Derived:
    """A sum over sub-tasks; its label says if some are missing."""
    part = "" if len(tasks) == complete else f" ({len(tasks)} of {complete} sub-tasks)"
    return _sum(label + part, tuple(tasks))
