"""ScienceQA (Lu et al. 2022, arXiv 2209.09513): multiple choice, all questions or those with an image.

The rule is that of `llava/eval/eval_science_qa.py` on LLaVA's main branch, by which most VLMs are reported: it reads an
option's letter in three forms, and any other answer is wrong. Problems and splits are read from the owners' files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.files import official_file
from sightline.evals.benches.words import OPTION_LETTER
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, mean
from sightline.records.rows import Answer, Sample, Score
from sightline.records.store import read_json

LETTERS = "ABCDE"
SPLITS = ("test", "val", "minitest", "minival", "train")
#: The benchmark of the questions with an image.
IMAGES_ONLY = "scienceqa-img"
_FOLDERS = ("", "data/scienceqa/")
#: The full stop is any character but a line break, as in the owners' pattern.
_STATED = re.compile(r"The answer is ([A-Z]).")


def scienceqa(name: str, options: BenchmarkOptions) -> "ScienceQA":
    """The benchmark's factory."""
    return ScienceQA(name, options)


@dataclass(frozen=True)
class ScienceQA:
    """4,241 questions of the test split, 2,017 of them with a picture."""

    name: str
    options: BenchmarkOptions
    max_new_tokens: int = 32

    @property
    def folder(self) -> Path:
        return self.options.images or self.options.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        with_picture = mean("right", "Accuracy with a picture", higher_is_better=True, primary=True, group="image")
        unread = mean(DECIDED_BY_QUIRK, "Answers that name no option (wrong)", higher_is_better=False)
        if self.name == IMAGES_ONLY:
            return {"img_accuracy": with_picture, "failed": unread}
        accuracy = mean("right", "Accuracy", higher_is_better=True)
        return {"accuracy": accuracy, "img_accuracy": with_picture, "failed": unread}

    @cached_property
    def _problems(self) -> dict[str, dict[str, Any]]:
        path = self._file("problems.json")
        problems = read_json(path)
        if not isinstance(problems, dict):
            raise InputError(
                f"{path} is not an object {{id: problem}}; fetch the file again from where its owners publish it."
            )
        return problems

    def _file(self, name: str) -> Path:
        return official_file(self.name, self.options.folder, *(folder + name for folder in _FOLDERS))

    @cached_property
    def _ids(self) -> list[str]:
        """The split's ids in the owners' order."""
        split, path = self.options.split or SPLITS[0], self._file("pid_splits.json")
        ids = [str(key) for key in read_json(path).get(split, ())]
        if unknown := [key for key in ids if key not in self._problems]:
            raise InputError(
                f"{path}: {split} names problem {unknown[0]!r}, which problems.json lacks; fetch both again."
            )
        if self.name == IMAGES_ONLY:
            ids = [key for key in ids if self._problems[key].get("image")]
        return ids if self.options.limit is None else ids[: self.options.limit]

    def samples(self) -> Iterator[Sample]:
        split = self.options.split or SPLITS[0]
        for key in self._ids:
            problem = self._problems[key]
            image, place = problem.get("image"), problem.get("split", split)
            yield Sample(
                id=key,
                images=(f"images/{place}/{key}/{image}",) if image else (),
                prompt=build_prompt(problem),
                reference=LETTERS[problem["answer"]],
                task="options",
                cluster=key,
                truth={"answer": problem["answer"], "choices": len(problem["choices"])},
            )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return ("image",) if sample.images else ("text",)

    def score(self, sample: Sample, answer: Answer) -> Score:
        letter = option_letter(answer.text)
        index = -1 if letter is None else LETTERS.index(letter)
        if index >= sample.truth["choices"]:
            index = -1  # a letter beyond the options
        values: dict[str, float | None] = {
            "right": float(index == sample.truth["answer"]),
            DECIDED_BY_QUIRK: float(index == -1),
        }
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details={"option": letter})


def build_prompt(problem: Mapping[str, Any]) -> str:
    """Context, question and lettered options, in the order in which LLaVA-1.5's list has them."""
    context = [f"Context: {problem['hint']}"] if problem.get("hint") else []
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem["choices"], strict=False)]
    return "\n".join([*context, problem["question"], *options, OPTION_LETTER])


def option_letter(text: str) -> str | None:
    """The option's letter in an answer, by the rule of LLaVA's main branch; None if there is none.

    Checked in this order: the text is the letter itself; it begins with the letter and ". "; "The answer is X" with one
    more character after the letter occurs exactly once. So "A", "A. Maine" and "The answer is A." are read; " A", "A.",
    "(A)", "a", "The answer is A" at the end, and an answer with two letters are not; "The answer is Both" is read as B.
    A letter beyond E counts as an occurrence but is not an option.
    """
    if text in tuple(LETTERS):
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = _STATED.findall(text)
    return found[0] if len(found) == 1 and found[0] in LETTERS else None
