"""GQA (Hudson & Manning 2019, arXiv 1902.09506): questions about scenes, right if answer and truth are equal strings.

The rule is the owners' `eval.py`. Answers in the owners' layout are compared as written, as in that script; others are
converted as in LLaVA's `convert_gqa_for_eval.py` first, as in papers. Validity, plausibility, grounding and the
distribution need annotations that the test-dev split lacks, and are not computed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.files import json_rows, official_file
from sightline.evals.benches.words import SHORT_ANSWER, first_pictures
from sightline.evals.benchmark import AnyMetric, BenchmarkOptions, Metric, mean
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import read_json

SPLITS = ("testdev_balanced", "testdev_all", "val_balanced", "val_all")
#: The group of all questions that count; unbalanced ones are used for consistency alone.
BALANCED = "balanced"
_SEMANTIC = {"attr": "attribute", "cat": "category", "global": "scene", "obj": "object", "rel": "relation"}


def gqa(name: str, options: BenchmarkOptions) -> "GQA":
    """The benchmark's factory."""
    return GQA(name, options)


@dataclass(frozen=True)
class GQA:
    """12,578 questions of the balanced test-dev split; other splits if the folder has them.

    With `as_written`, answers are compared as in the owners' script, without LLaVA's conversion.
    """

    name: str
    options: BenchmarkOptions
    as_written: bool = False
    max_new_tokens: int = 32

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    def adapt_to(self, answers: Path) -> "GQA":
        """Compare answers as written if they have the owners' layout, rows of `questionId` and `prediction`."""
        try:
            _, first = next(json_rows(answers), ("", {}))
        except InputError:
            return self  # another layout, or a broken file, which is reported when the answers are read
        return replace(self, as_written="questionId" in first and "prediction" in first)

    @property
    def caveats(self) -> tuple[str, ...]:
        if not self.as_written:
            return ()
        return (
            "the answers are in the layout of GQA's eval.py and compared as written, as it does; accuracy_converted is"
            " after LLaVA's conversion",
        )

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        split = self.options.split or SPLITS[0]
        path = official_file(
            self.name, self.options.folder, f"{split}_questions.json", f"questions/{split}_questions.json"
        )
        rows = read_json(path)
        if not isinstance(rows, dict):
            raise InputError(
                f"{path} is not an object {{id: question}}; fetch the file again from where its owners publish it."
            )
        return {key: {**row, "id": key} for key, row in rows.items()}

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        found: dict[str, AnyMetric] = {
            "accuracy": mean("right", "Accuracy", higher_is_better=True, primary=True, group=BALANCED),
            "binary": mean("right", "Accuracy of yes/no and choices", higher_is_better=True, group="binary"),
            "open": mean("right", "Accuracy of open questions", higher_is_better=True, group="open"),
            "accuracy_strict": mean(
                "right_as_written", "Accuracy, answers taken as written", higher_is_better=True, group=BALANCED
            ),
            "accuracy_converted": mean(
                "right_converted", "Accuracy after LLaVA's conversion", higher_is_better=True, group=BALANCED
            ),
        }
        for group in sorted({group for row in self._rows.values() for group in _types(row)}):
            found[group] = mean("right", f"Accuracy of {group.replace('_', ' ')}", higher_is_better=True, group=group)
        if all(set(_entailed(row)) <= self._rows.keys() for row in self._rows.values()):
            found["consistency"] = Metric(
                label="Accuracy of what a right answer entails",
                numerator={"consistent": 1},
                denominator={"entails": 1},
                higher_is_better=True,
                group=BALANCED,
            )
        return found

    def samples(self) -> Iterator[Sample]:
        for row in first_pictures(self._rows.values(), "imageId", self.options.limit):
            yield Sample(
                id=row["id"],
                images=(f"images/{row['imageId']}.jpg",),
                prompt=f"{row['question']}\n{SHORT_ANSWER}",
                reference=row["answer"],
                task="short-answer",
                cluster=row["imageId"],
                truth={"answer": row["answer"], "entailed": _entailed(row)},
            )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        row = self._rows[sample.id]
        if not row.get("isBalanced", True):
            return ()
        types = _types(row)
        if not types:
            return (BALANCED,)
        return (BALANCED, "open" if row["types"]["structural"] == "query" else "binary", *types)

    def score(self, sample: Sample, answer: Answer) -> Score:
        truth, converted = sample.truth["answer"], convert_answer(answer.text)
        right, as_written = float(converted == truth), float(answer.text == truth)
        values: dict[str, float | None] = {
            "right": as_written if self.as_written else right,
            "right_as_written": as_written,
            "right_converted": right,
            "consistent": None,
            "entails": None,
        }
        details = {"answer": answer.text if self.as_written else converted, "truth": truth}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Give each right answer the share of the questions it entails that are right too; others entail nothing."""
        if "consistency" not in self.metrics:
            yield from scores
            return
        kept = list(scores)
        right = {score.sample_id: score.values["right"] for score in kept}
        for score in kept:
            consistent, entails = self._consistency(score.sample_id, right)
            values = {**score.values, "consistent": consistent, "entails": entails}
            yield score.model_copy(update={"values": values})

    def _consistency(self, key: str, right: Mapping[str, float | None]) -> tuple[float, float] | tuple[None, None]:
        """(share of entailed questions that are right, whether the answer counts), None where an answer is missing."""
        entailed = _entailed(self._rows[key])
        if right[key] is None:
            return None, None
        if not right[key] or not entailed:
            return 0.0, 0.0
        known = [one for one in map(right.get, entailed) if one is not None]
        return (sum(known) / len(known), 1.0) if len(known) == len(entailed) else (None, None)


def convert_answer(text: str) -> str:
    """An answer as LLaVA passes it to the owners' script: without full stops at its end, in lower case.

    Nothing else is removed: white space at either end, articles or an exclamation mark make it wrong.
    """
    return text.rstrip(".").lower()


def _types(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The question's structural and semantic type, as names of metrics."""
    types = row.get("types") or {}
    if "structural" not in types or "semantic" not in types:
        return ()
    return (f"structural_{types['structural']}", f"semantic_{_SEMANTIC.get(types['semantic'], types['semantic'])}")


def _entailed(row: Mapping[str, Any]) -> list[str]:
    return [key for key in row.get("entailed") or () if key != row["id"]]
