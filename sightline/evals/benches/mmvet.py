"""MM-Vet (Yu et al. 2023, arXiv 2308.02490): 218 questions that mix six capabilities, graded in tenths against a truth.

The owners' `mm-vet_evaluator.py` shows a judge worked examples and reads the first word of its reply. The prompt here
is Sightline's own after that protocol; the official one can be read from a file.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.files import official_file
from sightline.evals.benches.words import first_pictures
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Derived, mean
from sightline.evals.judging.protocols import Case, Grading, Reading
from sightline.evals.judging.verdicts import HOW_TO_JUDGE, Verdicts
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import read_json

FILE = "mm-vet.json"
CAPABILITIES = {
    "rec": "recognition", "ocr": "text", "know": "knowledge", "gen": "language", "spat": "places", "math": "arithmetic",
}  # fmt: skip
#: Prefix of groups of the questions that need exactly these capabilities.
_JUST = "just_"

_TASK = (
    "Grade how far a prediction agrees with the truth, from 0.0 (not at all) to 1.0 (fully) in steps of 0.1. Where the"
    " truth joins parts by <AND>, each of them must be in the prediction for 1.0, and a share of them earns that share;"
    " where it joins them by <OR>, any one is enough. Complete the last row with the grade alone.\n\n"
    "Question | Truth | Prediction | Grade\n"
    "--- | --- | --- | ---\n"
    "Which two numbers are on the door? | 4 <AND> 17 | 5 and 18 | 0.0\n"
    "Which two numbers are on the door? | 4 <AND> 17 | It says 17. | 0.5\n"
    "Which two numbers are on the door? | 4 <AND> 17 | 4, or perhaps 40 | 0.5\n"
    "Which two numbers are on the door? | 4 <AND> 17 | 17 and 4 | 1.0\n"
    "What is this fruit called? | pomelo <OR> shaddock | A shaddock, cut open. | 1.0\n"
    "What is the joke? | The sign forbids signs, so that it forbids itself, which nobody who put it up noticed. | It is"
    " about a sign that is in the wrong place. | 0.3\n"
    "What is the joke? | The sign forbids signs, so that it forbids itself, which nobody who put it up noticed. | The"
    " sign bans all signs and is one, so it breaks its own rule without its makers seeing it. | 1.0\n"
    "{question} | {reference} | {answer} | "
)


def read_grade(reply: str) -> Reading:
    """The owners' rule: the first word is a number from 0 to 1; else the reply is unreadable and requested again."""
    first = reply.split()[:1]
    try:
        grade = float(first[0]) if first else math.nan
    except ValueError:
        return None
    return {"grade": grade} if 0.0 <= grade <= 1.0 else None


GRADING = Grading(
    name="mm-vet",
    prompt=_TASK,
    read=read_grade,
    worth=lambda reading: reading["grade"],
    hint="\nThe grade is a number from 0.0 to 1.0: ",
    tries=5,
)


def mmvet(name: str, options: BenchmarkOptions) -> "MMVet":
    """The benchmark's factory."""
    return MMVet(name, options)


@dataclass(frozen=True)
class MMVet:
    """218 questions on 200 images; each counts for every capability that it needs."""

    name: str
    options: BenchmarkOptions
    grading: Grading = GRADING
    verdicts: Verdicts = field(default_factory=Verdicts)
    max_new_tokens: int = 512

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        path = official_file(self.name, self.options.folder, FILE, f"mm-vet/{FILE}")
        rows = read_json(path)
        if not isinstance(rows, dict):
            raise InputError(
                f"{path} is not an object {{id: question}}; fetch the file again from where its owners publish it."
            )
        found = [{**row, "id": key} for key, row in rows.items()]
        return list(first_pictures(found, "imagename", self.options.limit))

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        found: dict[str, AnyMetric] = {
            "total": mean("grade", "Mean grade", higher_is_better=True, primary=True),
            "total_official": mean("official_grade", "Mean grade, unread replies as 0", higher_is_better=True),
        }
        needed = {capability for row in self._rows for capability in row["capability"]}
        for name in sorted(needed, key=lambda name: (*CAPABILITIES, name).index(name)):
            label = CAPABILITIES.get(name, name)
            found[name] = mean("grade", f"Mean grade where {label} is needed", higher_is_better=True, group=name)
        for just in dict.fromkeys(_just(row) for row in self._rows):
            label = just.removeprefix(_JUST).replace("_", ", ")
            found[just] = mean("grade", f"Mean grade where just {label} are needed", higher_is_better=True, group=just)
        return {**found, **_run_metrics(self._runs)}

    @cached_property
    def _runs(self) -> int:
        """The number of gradings of each answer."""
        return max((len(replies) for replies in self.verdicts.replies.values()), default=0)

    def samples(self) -> Iterator[Sample]:
        for row in self._rows:
            yield Sample(
                id=row["id"],
                images=(f"images/{row['imagename']}",),
                prompt=row["question"],
                reference=row["answer"],
                task="open",
                cluster=row["imagename"],
                truth={"capabilities": sorted(set(row["capability"])), "just": _just(row)},
            )

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        """The owners' id, v1_NUMBER; LLaVA writes the number alone."""
        number = row.get("question_id")
        is_number = type(number) is int or (isinstance(number, str) and number.isdigit())
        return f"v1_{number}" if is_number else None

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (*sample.truth["capabilities"], sample.truth["just"])

    def case(self, sample: Sample, answer: Answer) -> Case:
        truth = (sample.reference or "").replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return Case(sample.prompt, answer.text, reference=truth)

    @property
    def judge_note(self) -> str:
        return f"{self.name} {HOW_TO_JUDGE.format(name=self.name)}"

    def with_verdicts(self, verdicts: Verdicts) -> "MMVet":
        return replace(self, verdicts=verdicts)

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None:
        """The grades of all runs in a row of the owners' grade files."""
        grades = row.get("score")
        return (str(row["id"]), tuple(map(str, grades))) if isinstance(grades, list) and "id" in row else None

    def score(self, sample: Sample, answer: Answer) -> Score:
        replies = [reply for reply in self.verdicts.replies_to(sample, answer) if reply is not None]
        grades = [reading["grade"] for reply in replies if (reading := self.grading.read(reply)) is not None]
        values: dict[str, float | None] = {
            "grade": sum(grades) / len(grades) if grades else None,
            "official_grade": sum(grades) / len(replies) if replies else None,
            DECIDED_BY_QUIRK: float(len(grades) < len(replies)),
            **{_run(number): None for number in range(self._runs)},
        }
        for number, reply in enumerate(self.verdicts.replies_to(sample, answer)):
            if reply is not None:
                reading = self.grading.read(reply)
                values[_run(number)] = 0.0 if reading is None else reading["grade"]
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details={"replies": replies})


def _run(number: int) -> str:
    """The name of a run's metric and of its value."""
    return f"run_{number + 1}"


def _run_metrics(runs: int) -> dict[str, AnyMetric]:
    """The total of each run, and their spread as in the official script: the population standard deviation."""
    if runs < 2:
        return {}
    found: dict[str, AnyMetric] = {
        _run(number): mean(_run(number), f"Mean grade in run {number + 1}, unread replies as 0", higher_is_better=True)
        for number in range(runs)
    }
    # `spread` divides by runs - 1, the owners by runs.
    weight = math.sqrt((runs - 1) / runs)
    found["std"] = Derived(
        label="Standard deviation of the runs' totals",
        kind="spread",
        parts=dict.fromkeys(found, weight),
        higher_is_better=None,
    )
    return found


def _just(row: Mapping[str, Any]) -> str:
    order = (*CAPABILITIES, *sorted(set(row["capability"])))
    return _JUST + "_".join(sorted(set(row["capability"]), key=order.index))
