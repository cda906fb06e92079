"""MME (Fu et al. 2023, arXiv 2306.13394): two yes/no questions on each picture, in fourteen sub-tasks.

The rule is the owners' `calculation.py`: a sub-task is worth its accuracy in percent, plus the percentage of pictures
both of whose questions are right. The questions are read by `mme_files` from the release or from result files.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.evals.benches.mme_files import Question, bare, file_rows, read_questions
from sightline.evals.benchmark import TOUCHED, AnyMetric, Derived, Setting, count, mean
from sightline.evals.twos import both_right
from sightline.records.rows import Answer, Sample, Score

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
#: Follows a sub-task's name in the group of its pictures, each counted once.
_PICTURES = "+"


def mme(name: str, setting: Setting) -> "MME":
    """The factory that the registry names."""
    return MME(name, setting)


@dataclass(frozen=True)
class MME:
    """2,374 questions on 1,187 pictures."""

    name: str
    setting: Setting
    max_new_tokens: int = 16

    @property
    def folder(self) -> Path:
        return self.setting.images or self.setting.folder

    @cached_property
    def _questions(self) -> list[Question]:
        found = read_questions(self.name, self.setting.folder, (*PERCEPTION, *COGNITION))
        pictures = dict.fromkeys(question.picture for question in found)
        kept = set(list(pictures)[: self.setting.limit])
        return [question for question in found if question.picture in kept]

    @cached_property
    def _by_question(self) -> dict[tuple[str, str], str]:
        return {(question.picture, bare(question.text)): question.key for question in self._questions}

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
        return {**single, **totals, **overall, "other": count(TOUCHED, "Answers that are neither yes nor no (wrong)")}

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
        """LLaVA's files name the picture where the question's id belongs, and the question in the prompt."""
        place, said = row.get("question_id", row.get("image")), row.get("prompt") or row.get("question")
        if not isinstance(place, str) or not isinstance(said, str):
            return None
        picture = f"{place.split('/')[0]}/{place.split('/')[-1].split('.')[0]}"
        return self._by_question.get((picture, bare(said)))

    def answer_rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of a folder of result files, `TASK.txt`, as the owners' script reads it."""
        return file_rows(path, (*PERCEPTION, *COGNITION))

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.truth["task"],)

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = yes_no_other(answer.text)
        values: dict[str, float | None] = {
            "right": float(said == sample.truth["answer"]),
            "both_right": None,
            TOUCHED: float(said == "other"),
        }
        details = {"parsed": said, "truth": sample.truth["answer"]}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Put on the second question of a picture whether both are right; the owners' lists keep the two together."""
        return both_right(
            scores, "right", "both_right", lambda score: tuple(f"{task}{_PICTURES}" for task in score.groups)
        )


def yes_no_other(text: str) -> str:
    """The owners' reading: "yes" or "no" anywhere in the first four characters, in lower case, "yes" first; else other.

    So "know" is a no, and an answer behind two spaces is neither.
    """
    start = text.lower()[:4]
    return next((said for said in ("yes", "no") if said in start), "other")


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
    """A sum over sub-tasks; its label says where some of them are not there."""
    part = "" if len(tasks) == complete else f" ({len(tasks)} of {complete} sub-tasks)"
    return _sum(label + part, tuple(tasks))
