"""TextVQA (Singh et al. 2019, arXiv 1904.08920): reading text in images, scored by soft agreement with ten humans.

Answers are normalized in `words`. Questions and answers are read from the official list; OCR is not used.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.files import official_file
from sightline.evals.benches.words import SHORT_ANSWER, first_pictures, process_answer, soft_accuracy
from sightline.evals.benchmark import AnyMetric, BenchmarkOptions, mean
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import read_json

_FILES = {"val": "TextVQA_0.5.1_val.json", "train": "TextVQA_0.5.1_train.json"}
_HUMANS = 10
#: Marks of the question among OCR tokens and instructions in LLaVA's lists.
_OCR_FIRST = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
_OCR_LINE = "Reference OCR token:"
#: Separator of the ids of questions that a row does not distinguish.
_OR = " or "


def textvqa(name: str, options: BenchmarkOptions) -> "TextVQA":
    """The benchmark's factory."""
    return TextVQA(name, options)


@dataclass(frozen=True)
class TextVQA:
    """5,000 questions on the 3,166 images of the validation split."""

    name: str
    options: BenchmarkOptions
    max_new_tokens: int = 32

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return {"accuracy": mean("accuracy", "Soft accuracy (VQA)", higher_is_better=True, primary=True)}

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        path = official_file(self.name, self.options.folder, _FILES[self.options.split or "val"])
        rows = read_json(path).get("data")
        if not isinstance(rows, list):
            raise InputError(f"{path} has no list `data`; fetch the file again from where its owners publish it.")
        for number, row in enumerate(rows):
            answers = row.get("answers")
            if not isinstance(answers, list) or len(answers) != _HUMANS:
                raise InputError(f"{path} data[{number}]: {_HUMANS} human answers are needed; the test split has none.")
        return rows

    @cached_property
    def _rows_by_question(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(image, question in lower case) -> its rows, several where it is asked again."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self._rows:
            found.setdefault((str(row["image_id"]), row["question"].lower()), []).append(row)
        return found

    def samples(self) -> Iterator[Sample]:
        for row in first_pictures(self._rows, "image_id", self.options.limit):
            image = str(row["image_id"])
            yield Sample(
                id=str(row["question_id"]),
                images=(f"train_images/{image}.jpg",),  # the validation pictures lie there too
                prompt=f"{row['question']}\n{SHORT_ANSWER}",
                reference=most_frequent(row["answers"]),
                task="short-answer",
                cluster=image,
                truth={"answers": row["answers"]},
            )

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        """The samples of a row by image and question; LLaVA's files have the image's id as the question's id."""
        image = str(row.get("question_id", row.get("image_id", "")))
        prompt = row.get("prompt") or row.get("question")
        rows = self._rows_by_question.get((image, extract_question(prompt)), ()) if isinstance(prompt, str) else ()
        return _OR.join(str(row["question_id"]) for row in rows) or None

    def candidates(self, key: str) -> tuple[str, ...]:
        return tuple(key.split(_OR)) if _OR in key else ()

    def as_ambiguous(self, sample: Sample) -> Sample:
        """The sample with the last annotation of its question, as LLaVA's evaluator indexes by image and question."""
        question = sample.prompt.removesuffix(f"\n{SHORT_ANSWER}").lower()
        answers = self._rows_by_question[sample.cluster, question][-1]["answers"]
        return sample.model_copy(update={"reference": most_frequent(answers), "truth": {"answers": answers}})

    def score(self, sample: Sample, answer: Answer) -> Score:
        accuracy = soft_accuracy(answer.text, sample.truth["answers"])
        details = {"processed": process_answer(answer.text)}
        return Score(sample_id=sample.id, cluster=sample.cluster, values={"accuracy": accuracy}, details=details)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most humans gave; of several, the first."""
    return max(answers, key=answers.count)


def extract_question(prompt: str) -> str:
    """The question in one of LLaVA's prompts, in lower case; other texts are used whole."""
    lines = prompt.split("\n")
    found = _OCR_FIRST.search(prompt) if prompt.startswith("OCR tokens: ") else None
    if found:
        return found[1].lower()
    if len(lines) == 3 and _OCR_LINE in prompt:
        return lines[1 if prompt.startswith(_OCR_LINE) else 0].lower()
    return (lines[0] if len(lines) == 2 else prompt).lower()
