"""POPE (Li et al. 2023, arXiv 2305.10355): "Is there an X in the image?", with the official lists and rule.

Answers are read in `evals.yes_no`; images are not needed to score. Without a split all three are used, and every metric
is the mean of the three, as in papers, beside each split's own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.evals.answer_reader import whole_id
from sightline.evals.benches.files import json_lines, official_file
from sightline.evals.benchmark import AnyMetric, BenchmarkOptions, Metric, average
from sightline.evals.registry import get_entry
from sightline.evals.yes_no import CELL_METRICS, YES_NO_METRICS, score_yes_no
from sightline.records.rows import Answer, Sample, Score

_SOURCES = {"pope": "coco", "pope-aokvqa": "aokvqa", "pope-gqa": "gqa"}
_SHARES = ("accuracy", "precision", "recall", "f1", "yes_ratio")
_SPLIT_KEYS = ("category", "split")
#: Keys of a row that may identify the question; `image_id` identifies the image.
_IDS = ("sample_id", "question_id", "questionId", "id")
#: LLaVA numbers the questions of all lists in one file: the first id of list n (from 0) is n times this, plus 1.
_LLAVA_STEP = 10_000_000
_LLAVA_SPLITS = ("adversarial", "random", "popular")
_LABELS = {"yes": True, "no": False}


def pope(name: str, options: BenchmarkOptions) -> "Pope":
    """POPE on the images of one source; raises an InputError if a list is not in the folder."""
    source = _SOURCES[name]
    lists = {}
    for split in (options.split,) if options.split else get_entry(name).splits:
        names = [f"{source}_pope_{split}.json", f"{source}_pope_seem_{split}.json"]
        lists[split] = official_file(name, options.folder, *names[: 1 if source == "coco" else 2])
    return Pope(name, lists, options.images or options.folder, options.limit)


@dataclass(frozen=True)
class Pope:
    """Questions of one or several splits, whose official lists are `lists`; ids are `split/question_id`.

    With `is_llava`, answers are numbered as in LLaVA's single file of answers to all lists.
    """

    name: str
    lists: Mapping[str, Path]
    folder: Path
    limit: int | None = None
    max_new_tokens: int = 16
    is_llava: bool = False

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        own = {name: YES_NO_METRICS[name] for name in _SHARES}
        if len(self.lists) == 1:
            return {**own, **CELL_METRICS}
        parts: dict[str, AnyMetric] = {}
        for split in self.lists:
            for name, metric in {**own, **CELL_METRICS}.items():
                assert isinstance(metric, Metric)
                parts[f"{split}_{name}"] = metric.model_copy(
                    update={"group": split, "label": f"{metric.label} ({split})", "primary": False}
                )
        means: dict[str, AnyMetric] = {
            name: average(
                tuple(f"{split}_{name}" for split in self.lists),
                f"{metric.label}, mean of the splits",
                higher_is_better=metric.higher_is_better,
                primary=metric.primary,
            )
            for name, metric in own.items()
        }
        return {**parts, **means, **CELL_METRICS}

    def samples(self) -> Iterator[Sample]:
        for split, path in self.lists.items():
            pictures: set[str] = set()
            for number, (where, row) in enumerate(json_lines(path), 1):
                image, question = _text(row, "image", where), _text(row, "text", where)
                pictures.add(image)
                if self.limit is not None and len(pictures) > self.limit:
                    break
                yield Sample(
                    id=f"{split}/{whole_id(row.get('question_id', number))}",
                    images=(image,),
                    prompt=question,
                    task="yes-no",
                    cluster=image,
                    truth={"split": split, "there": _label(row, where)},
                )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (str(sample.truth["split"]),)

    def score(self, sample: Sample, answer: Answer) -> Score:
        return score_yes_no(answer, truth=sample.truth["there"])

    def with_numbering(self, rows: Iterable[Mapping[str, Any]]) -> "Pope":
        """The benchmark with LLaVA's numbering if an id is beyond all lists and no row names its list."""
        for row in rows:
            found = whole_id(_id(row))
            if found is None or "/" in str(found) or _split(row) is not None:
                return self
            if str(found).isdecimal() and int(found) > _LLAVA_STEP:
                return replace(self, is_llava=True)
        return self

    def split_row(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Split a VLMEvalKit row into one for each list: a row of category "random,popular" answers in both."""
        parts = [part.strip() for part in (_split(row) or "").split(",")]
        if len(parts) < 2:
            return [row]
        known = [part for part in parts if part in self.lists] or parts[:1]
        return [{**row, "category": part} for part in known]

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        """`split/question_id`, with the split from the id, from `category` or `split`, or the only one in use."""
        found = whole_id(_id(row))
        if found is None or "/" in str(found):
            return None if found is None else _whole_number(str(found))
        if self.is_llava and str(found).isdecimal() and int(found) // _LLAVA_STEP < len(_LLAVA_SPLITS):
            return f"{_LLAVA_SPLITS[int(found) // _LLAVA_STEP]}/{int(found) % _LLAVA_STEP}"
        split = _split(row)
        if split is None and len(self.lists) > 1:
            raise InputError(
                f"an answer's id {shorten(found)} occurs in every split ({', '.join(self.lists)}); choose one with"
                " --split, or give each answer its 'category'"
            )
        return f"{split or next(iter(self.lists))}/{found}"


def _id(row: Mapping[str, Any]) -> Any:
    return next((row[name] for name in _IDS if row.get(name) is not None), None)


def _split(row: Mapping[str, Any]) -> str | None:
    return next((row[name] for name in _SPLIT_KEYS if isinstance(row.get(name), str)), None)


def _whole_number(key: str) -> str:
    """The key with a whole number: `random/1.0` becomes `random/1`."""
    split, _, number = key.rpartition("/")
    return f"{split}/{whole_id(number)}"


def _label(row: Mapping[str, Any], where: str) -> bool:
    """The label as a truth value. The official scripts read every label but "no" as yes; other labels are refused."""
    label = _text(row, "label", where)
    there = _LABELS.get(label.strip().lower())
    if there is None:
        raise InputError(f"{where}: label = {shorten(label)} is neither yes nor no; correct the row")
    return there


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}: {name} = {shorten(value)} is not text; fetch the official list again")
    return value
