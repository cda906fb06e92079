"""LLaVA-Bench (Liu et al. 2023, arXiv 2304.08485): answers graded from 1 to 10 beside GPT-4's, in the wild and on COCO.

The metric is the sum of the model's grades over the sum of GPT-4's, as in `summarize_gpt_review.py`, for all questions
and each category. The judge's prompts are those of the owners' `rule.json` if it is in the user's folder, else
Sightline's own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.files import json_lines, official_file
from sightline.evals.benches.words import first_pictures
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Metric, mean
from sightline.evals.judging.protocols import Case, Grading, Reading
from sightline.evals.judging.verdicts import HOW_TO_JUDGE, Verdicts
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import read_json

CATEGORIES = ("conv", "detail", "complex")
RULES = "rule.json"


@dataclass(frozen=True)
class ReviewLayout:
    """The files of one of the two benchmarks: questions, GPT-4's answers, and descriptions of the images."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    context: tuple[str, ...]
    captions: str
    rules: str  # prefix of a category's name in `rule.json`


LAYOUTS = {
    "llava-bench": ReviewLayout(
        ("questions.jsonl",), ("answers_gpt4.jsonl",), ("context.jsonl",), "caption", "llava_bench_"
    ),
    "llava-bench-coco": ReviewLayout(
        ("qa90_questions.jsonl",), ("qa90_gpt4_answer.jsonl",), ("caps_boxes_coco2014_val_80.jsonl",), "captions", ""
    ),
}

_FRAME = (
    "[What the picture shows]\n{context}\n\n[Question]\n{question}\n\n[Answer 1]\n{reference}\n\n[End of answer 1]\n\n"
    "[Answer 2]\n{answer}\n\n[End of answer 2]\n\n"
)
_TASK = _FRAME + (
    "[Your task]\nTwo assistants were asked about a picture that you do not see; above is what it shows. Grade each"
    " answer from 1 to 10 by how helpful, relevant, right and detailed it is; more is better. Neither the order of the"
    " answers nor their length by itself speaks for one of them. In the first line write the two grades alone, that of"
    " answer 1 first, with a space between them. From the second line on, give your reasons."
)
#: The frame of the owners' script, around a rule of their file.
_OFFICIAL = (
    "[Context]\n{context}\n\n[Question]\n{question}\n\n[ROLE 1]\n{reference}\n\n[End of ROLE 1]\n\n"
    "[ROLE 2]\n{answer}\n\n[End of ROLE 2]\n\n[System]\nRULE\n\n"
)


def read_grades(reply: str) -> Reading:
    """The owners' rule: the first line, with commas as spaces, is two numbers separated by one space; else unreadable.

    So "8,7" and "8 7" are read, but "8, 7" and "8 7 " are not.
    """
    parts = reply.split("\n")[0].replace(",", " ").split(" ")
    if len(parts) != 2:
        return None
    try:
        reference, model = map(float, parts)
    except ValueError:
        return None
    # -1 is the owners' mark of an unreadable reply, and Python reads "nan" as a number.
    return (
        {"reference": reference, "model": model} if min(reference, model) >= 0 and max(reference, model) < 1e9 else None
    )


def llava_bench(name: str, options: BenchmarkOptions) -> "LLaVABench":
    """The benchmark's factory."""
    layout = LAYOUTS[name]
    rules = options.folder / RULES
    prompts = _read_official_prompts(rules, layout) if rules.is_file() else {}
    grading = Grading(
        name=name, prompt=_TASK, prompts=prompts, read=read_grades, worth=lambda reading: reading["model"] / 10
    )
    return LLaVABench(name, options, layout, grading)


def _read_official_prompts(path: Path, layout: ReviewLayout) -> dict[str, str]:
    rules, found = read_json(path), {}
    for category in CATEGORIES:
        rule = rules.get(layout.rules + category)
        if not isinstance(rule, dict) or not {"role", "prompt"} <= rule.keys():
            raise InputError(
                f"{path}: there is no rule {layout.rules + category!r}; fetch the file again, or remove it."
            )
        found[category] = _OFFICIAL.replace("ROLE", rule["role"]).replace("RULE", rule["prompt"])
    return found


@dataclass(frozen=True)
class LLaVABench:
    """60 questions on 24 images in the wild, 90 on 30 COCO images."""

    name: str
    options: BenchmarkOptions
    layout: ReviewLayout
    grading: Grading
    verdicts: Verdicts = field(default_factory=Verdicts)
    max_new_tokens: int = 1024

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        found: dict[str, AnyMetric] = {"all": _relative("", "Grades relative to GPT-4", "", primary=True)}
        for category in CATEGORIES:
            found[category] = _relative("", f"Grades relative to GPT-4, {category}", category)
        for name in ("all", *CATEGORIES):
            label = f"Grades relative to GPT-4, unread replies as -1{'' if name == 'all' else ', ' + name}"
            found[f"{name}_official"] = _relative("official_", label, "" if name == "all" else name)
        for column, label in (("model", "Mean grade of the answers"), ("reference", "Mean grade of GPT-4's answers")):
            better = True if column == "model" else None
            found[column] = mean(column, label, higher_is_better=better, unit="number")
        return found

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        layout = self.layout
        answers = {str(row["question_id"]): row["text"] for row in self._read(layout.answers)}
        contexts = {row["image"]: _context(row, layout.captions) for row in self._read(layout.context)}
        rows = []
        for row in first_pictures(self._read(layout.questions), "image", self.options.limit):
            key = str(row["question_id"])
            if key not in answers or row["image"] not in contexts:
                lacking = "GPT-4's answer" if key not in answers else f"the description of image {row['image']}"
                raise InputError(f"{self.options.folder}: question {key} lacks {lacking}; fetch the files again.")
            rows.append({**row, "reference": answers[key], "context": contexts[row["image"]]})
        return rows

    def _read(self, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        return (row for _, row in json_lines(official_file(self.name, self.options.folder, *names)))

    def samples(self) -> Iterator[Sample]:
        for row in self._rows:
            yield Sample(
                id=str(row["question_id"]),
                images=(f"images/{row['image']}",),
                prompt=row["text"],
                reference=row["reference"],
                task="open",
                cluster=str(row["image"]),
                truth={"context": row["context"], "category": row["category"]},
            )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.truth["category"],)

    def case(self, sample: Sample, answer: Answer) -> Case:
        return Case(
            question=sample.prompt,
            answer=answer.text,
            reference=sample.reference or "",
            context=sample.truth["context"],
            category=sample.truth["category"],
        )

    @property
    def judge_note(self) -> str:
        return f"{self.name} {HOW_TO_JUDGE.format(name=self.name)}"

    def with_verdicts(self, verdicts: Verdicts) -> "LLaVABench":
        return replace(self, verdicts=verdicts)

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None:
        """The two grades under `tuple` or `score` in a row of the owners' review files, else the judge's reply.

        `summarize_gpt_review.py` reads the same: if a reply could not be parsed, `tuple` is corrected by hand.
        """
        if "question_id" not in row:
            return None
        grades = next((row[name] for name in ("tuple", "score") if _is_pair(row.get(name))), None)
        if grades is None and not isinstance(row.get("content"), str):
            return None
        reply = row["content"] if grades is None else " ".join(str(grade) for grade in grades)
        return str(row["question_id"]), (reply,)

    def score(self, sample: Sample, answer: Answer) -> Score:
        judge_reply = next((reply for reply in self.verdicts.replies_to(sample, answer) if reply is not None), None)
        reading = None if judge_reply is None else self.grading.read(judge_reply)
        unread = judge_reply is not None and reading is None
        values: dict[str, float | None] = {DECIDED_BY_QUIRK: float(unread)}
        for name in ("model", "reference"):
            values[name] = None if reading is None else reading[name]
            values[f"official_{name}"] = -1.0 if unread else values[name]
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details={"reply": judge_reply})


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(grade) in (int, float) for grade in value)


def _relative(prefix: str, label: str, group: str, *, primary: bool = False) -> Metric:
    return Metric(
        label=label,
        numerator={f"{prefix}model": 1.0},
        denominator={f"{prefix}reference": 1.0},
        higher_is_better=True,
        primary=primary,
        group=group,
    )


def _context(row: Mapping[str, Any], captions: str) -> str:
    """One caption a line, then, on COCO, each object with its box."""
    caption = row[captions]
    lines = caption if isinstance(caption, str) else "\n".join(caption)
    boxes = [f"{instance['category']}: {instance['bbox']}" for instance in row.get("instances", ())]
    return "\n\n".join([lines, "\n".join(boxes)]) if boxes else lines
