"""HallusionBench (Guan et al. 2023, arXiv 2310.14566): yes/no questions whose images were altered to flip the answer.

Accuracy per question (aAcc), per figure (fAcc) and per question over all figures of its set (qAcc), as in the owners'
`utils.py`. Answers are graded by a judge, or without one by words (`verdict_by_words`). Values of several answers are
computed in `hallusion_groups`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.evals.benches.files import json_lines, official_file
from sightline.evals.benches.hallusion_groups import (
    CAUSES,
    GROUP_VALUES,
    INPUT,
    RIGHT,
    UNCLEAR,
    WRONG,
    combine_answers,
)
from sightline.evals.benches.words import first_pictures
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Metric, count, mean
from sightline.evals.judging.protocols import Case, Grading, Reading
from sightline.evals.judging.verdicts import Verdicts
from sightline.records.rows import Answer, Sample, Score

FILE = "HallusionBench.json"
#: The benchmark that is scored by words even if a judge is given.
BY_WORDS = "hallusionbench-words"
_PLACE = ("category", "subcategory", "set_id", "figure_id", "question_id")
#: Keys of the judge's verdict in official result files.
_CHECKED = re.compile(r"_gpt_check$|^correctness$")
_WORDS = re.compile(r"\w+")
#: The line of a verdict that holds the owners' second judgment: whether an answer agrees with that to the original.
_SAME = re.compile(r"^same: ([01])$", re.MULTILINE)
_VALUES = ("right", "unclear", "LH", "VI", "Mix", "wrong", "missed_no", "predicts_yes", "truth_yes", "same")

JUDGE = (
    "You check answers to questions about a picture that you do not see. You are told the question, the truth, and an"
    " answer. Say whether the answer agrees with the truth.\n"
    "- correct: nothing in it contradicts the truth, and it settles the question.\n"
    "- incorrect: it contradicts the truth.\n"
    "- unclear: it does not commit itself, says that it cannot tell, or leaves the question open.\n"
    "Reply with that one word and nothing else.\n\n"
    "Question: {question}\nTruth: {reference}\nAnswer: {answer}\nVerdict:"
)


def read_verdict(reply: str) -> Reading:
    """The owners' rule: "incorrect" anywhere takes precedence over "correct"; a reply with neither counts as unclear.

    Here a reply without any of the three words is unreadable, since it says nothing about the answer.
    """
    text = reply.lower()
    found = (("incorrect", WRONG), ("correct", RIGHT), ("unclear", UNCLEAR))
    return next(({"verdict": verdict} for word, verdict in found if word in text), None)


GRADING = Grading(
    name="hallusionbench",
    prompt=JUDGE,
    read=read_verdict,
    worth=lambda reading: float(reading["verdict"] == RIGHT),
)


def hallusionbench(name: str, options: BenchmarkOptions) -> "HallusionBench":
    """The benchmark's factory."""
    return HallusionBench(name, options)


@dataclass(frozen=True)
class HallusionBench:
    """1,129 questions, 178 of them without an image."""

    name: str
    options: BenchmarkOptions
    verdicts: Verdicts = field(default_factory=Verdicts)
    grading: Grading = GRADING
    max_new_tokens: int = 64

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        found: dict[str, AnyMetric] = {}
        for part, label in (("", ""), ("_VD", " (visual dependent)"), ("_VS", " (visual supplement)")):
            for name, group, text in (
                ("aAcc", "", "Right questions"),
                ("fAcc", "figure", "Figures with every question right"),
                ("qAcc", "pair", "Questions right on every figure of their set"),
                ("easy", "easy", "Easy questions (original figures, or none) right on all of them"),
                ("hard", "hard", "Hard questions (altered figures) right on all of them"),
            ):
                column, place = f"{group}_right".removeprefix("_"), (group + part).removeprefix("_")
                found[name + part] = mean(
                    column, text + label, higher_is_better=True, primary=name + part == "qAcc", group=place
                )
        return {**found, **_MORE_METRICS}

    def samples(self) -> Iterator[Sample]:
        rows = (row for _, row in json_lines(self._file))
        for row in first_pictures(({**row, "figure": _set(row)} for row in rows), "figure", self.options.limit):
            shown = str(row["visual_input"]) != "0"
            picture = f"{row['category']}/{row['subcategory']}/{row['set_id']}_{row['figure_id']}.png"
            yield Sample(
                id=sample_id(row),
                images=(picture,) if shown else (),
                prompt=row["question"],
                reference=row["gt_answer_details"],
                task="yes-no",
                cluster=_set(row),
                truth={
                    "answer": None if row.get("gt_answer") is None else float(row["gt_answer"]),
                    "details": row["gt_answer_details"],
                    "shown": shown,
                    **{name: str(row[name]) for name in _PLACE},
                },
            )

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        """The sample of a row by the fields of official result files; a number alone is the place in the list."""
        if all(name in row for name in _PLACE):
            return sample_id(row)
        number = str(row.get("question_id", row.get("id")))
        return self._keys[int(number)] if number.isdigit() and int(number) < len(self._keys) else None

    @cached_property
    def _keys(self) -> list[str]:
        return [sample_id(row) for _, row in json_lines(self._file)]

    @cached_property
    def _inputs(self) -> dict[str, str]:
        """The visual input of each question: 0 is no figure, 1 an original one, 2 an altered one."""
        return {sample_id(row): str(row["visual_input"]) for _, row in json_lines(self._file)}

    @property
    def _file(self) -> Path:
        return official_file(self.name, self.options.folder, FILE, "HallusionBench_result.json")

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.truth["category"], INPUT + self._inputs[sample.id])

    def case(self, sample: Sample, answer: Answer) -> Case:
        return Case(sample.prompt, answer.text, reference=sample.truth["details"])

    @property
    def judge_note(self) -> str:
        return f"{self.name} is scored by words; its owners ask a judge, which --judge gives"

    @property
    def caveats(self) -> tuple[str, ...]:
        if not self.verdicts.given or any(
            reply is not None and _SAME.search(reply) for replies in self.verdicts.replies.values() for reply in replies
        ):
            return ()
        return (
            "LH_share, VI_share and Mixed_share compare the answers' yes and no with those to the original figure;"
            " the owners' script asks a language model whether both agree",
        )

    def with_verdicts(self, verdicts: Verdicts) -> "HallusionBench":
        return self if self.name == BY_WORDS else replace(self, verdicts=verdicts)

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None:
        """The verdict in a row of the owners' graded files: 0, 1 or 2 beside the answer, and `same` as 0 or 1."""
        found = next((str(row[name]) for name in row if _CHECKED.search(name)), None)
        words = {"0": "incorrect", "1": "correct", "2": "unclear"}
        if found not in words:
            return None
        same = str(row.get("same"))
        return sample_id(row), (f"{words[found]}\nsame: {same}" if same in ("0", "1") else words[found],)

    def score(self, sample: Sample, answer: Answer) -> Score:
        if self.verdicts.given:
            judge_reply = next((reply for reply in self.verdicts.replies_to(sample, answer) if reply is not None), None)
            reading = None if judge_reply is None else self.grading.read(judge_reply)
            verdict, unread = (
                None if reading is None else reading["verdict"],
                judge_reply is not None and reading is None,
            )
        else:
            judge_reply, unread = None, False
            verdict = verdict_by_words(answer.text, sample.truth["answer"])
        values = {**_values(sample.truth, verdict), DECIDED_BY_QUIRK: float(unread)}
        if judge_reply is not None and (same := _SAME.search(judge_reply)):
            values["same"] = float(same[1])
        details = {"verdict": verdict, "by": "judge" if self.verdicts.given else "words", "reply": judge_reply}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Add the values of several answers to the first of them."""
        return combine_answers(scores)


def _more_metrics() -> dict[str, AnyMetric]:
    """The metrics that evaluation.py prints beside the accuracies, and the counts of its `get_eval_all`."""
    found: dict[str, AnyMetric] = {
        "figure_score": mean(
            "figure_share", "Share of a figure's questions that is right", higher_is_better=True, group="figure"
        )
    }
    for name, better in (("correct", True), ("inconsistent", None), ("wrong", False)):
        text = {"correct": "every", "inconsistent": "some, not every", "wrong": "no"}[name]
        column = "figure_right" if name == "correct" else f"figure_{name}"
        label = f"Consistency test: figures with {text} question right"
        found[f"consistency_{name}"] = mean(column, label, higher_is_better=better, group="figure")
    found["yes_difference"] = Metric(
        label="Yes/no bias (Pct Diff): share of yes predicted less that of the truth",
        numerator={"predicts_yes": 1, "truth_yes": -1},
        higher_is_better=None,
    )
    found["false_positive_ratio"] = Metric(
        label="Yes/no bias (FP Ratio): wrong answers where the truth is no",
        numerator={"missed_no": 1},
        denominator={"wrong": 1},
        higher_is_better=None,
    )
    for name, text in zip(CAUSES, ("language", "vision", "either"), strict=True):
        found[f"{name}_share"] = Metric(
            label=f"Errors laid to {text}, of all errors, by the pair with the original figure",
            numerator={f"cause_{name}": 1},
            denominator={f"cause_{other}": 1 for other in CAUSES},
            higher_is_better=None,
        )
    for column, text in (("LH", "language"), ("VI", "vision"), ("Mix", "either")):
        found[column] = count(column, f"Wrong answers laid to {text}, each by itself", higher_is_better=False)
    found["unclear"] = mean("unclear", "Answers that leave the question open", higher_is_better=None)
    return found


_MORE_METRICS = _more_metrics()


def sample_id(row: Mapping[str, Any]) -> str:
    """The id by which the official script identifies questions."""
    return "_".join(str(row[name]) for name in _PLACE)


def verdict_by_words(text: str, truth: float | None) -> float | None:
    """Right, wrong or unclear by words: "yes" or "no" as a word in any case, but not both; or the answer "0" or "1".

    None if the list has no truth.
    """
    if truth is None:
        return None
    words = set(_WORDS.findall(text.lower()))
    if text.strip() in ("0", "1"):
        return float(float(text) == truth)
    if ("yes" in words) == ("no" in words):
        return UNCLEAR
    return float(float("yes" in words) == truth)


def _set(row: Mapping[str, Any]) -> str:
    """The unit of resampling: figures of one set share their questions and are scored together."""
    return "_".join(str(row[name]) for name in _PLACE[:3])


def _values(truth: Mapping[str, Any], verdict: float | None) -> dict[str, float | None]:
    nothing: dict[str, float | None] = dict.fromkeys((*_VALUES, *GROUP_VALUES))
    if verdict is None:
        return nothing
    without = truth["category"] == "VS" and truth["figure_id"] == "0"
    # Without a figure, an unclear answer is right.
    right = float(verdict == RIGHT or (without and verdict == UNCLEAR))
    values = {
        **nothing,
        "right": right,
        "unclear": float(verdict == UNCLEAR),
        "wrong": 1.0 - right,
        **{name: float(name == _error_cause(truth, verdict)) for name in ("LH", "VI", "Mix")},
    }
    if (answer := truth["answer"]) is not None:
        # The owners treat every answer that is not right as the opposite of the truth, even an unclear one.
        values |= {"truth_yes": answer, "predicts_yes": float(right == answer)}
        values["missed_no"] = float(right == 0.0 and answer == 0.0)
    return values


def _error_cause(truth: Mapping[str, Any], verdict: float) -> str:
    """The cause of a wrong answer (the owners' `get_eval_all`): language, vision, or either; "" for none."""
    if truth["category"] == "VD" and truth["figure_id"] == "0":
        return "" if verdict == RIGHT else "VI"
    if truth["category"] != "VD" and not truth["shown"]:
        return "LH" if verdict == WRONG else ""
    return {WRONG: "Mix", UNCLEAR: "VI"}.get(verdict, "")
