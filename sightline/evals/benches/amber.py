"""AMBER (Wang et al. 2023, arXiv 2311.07397): objects in descriptions, and yes/no questions, as in its script.

Nouns are found in `amber_nouns`. Metrics are not rounded, except inside F1, which the script computes from rounded
percentages; denominators start at 0.001, as in the script. The parts are the script's evaluation types.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.evals.answer_reader import whole_id
from sightline.evals.benches.amber_nouns import NounTools, installed_tools
from sightline.evals.benches.files import json_lines, official_file
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Derived, Metric
from sightline.records.rows import Answer, Sample, Score

#: Start value of the script's denominators, so that none is zero.
START = 0.001
KINDS = ("state", "number", "action")
_DIMENSIONS = ("existence", "attribute", "relation")


def generative_metrics(tools: NounTools) -> dict[str, AnyMetric]:
    """CHAIR, Cover, Hal and Cog of the descriptions; the labels name the official tools that are missing."""
    note = f" ({', '.join(tools.missing_tools)})" if tools.missing_tools else ""
    return {
        "chair": _ratio("Absent nouns" + note, "absent_nouns", "nouns", better=False, primary=True),
        "cover": _ratio("True objects named" + note, "covered", "present", better=True),
        "clean": _ratio("Descriptions without an absent noun" + note, "clean", "", better=True),
        "hal": Derived(
            label="Descriptions with an absent noun" + note,
            kind="linear",
            parts={"clean": -1},
            constant=1,
            higher_is_better=False,
        ),
        "cog": _ratio("Expected hallucinations named" + note, "expected_named", "expected", better=False),
    }


def discriminative_metrics(part: str) -> dict[str, AnyMetric]:
    """Accuracy, and precision, recall and F1 of "No": over all questions, by dimension and by kind of attribute."""
    found: dict[str, AnyMetric] = {}
    if part in ("", "discriminative"):
        found |= _no_answer_metrics("", "discriminative", 1, 0.0001)
    for dimension in _DIMENSIONS:
        if part not in ("", "discriminative", dimension):
            continue
        # Attribute adds up three counters that each start at 0.001; existence has a different constant in F1.
        starts = len(KINDS) if dimension == "attribute" else 1
        found |= _no_answer_metrics(f"{dimension}_", dimension, starts, 0.001 if dimension == "existence" else 0.0001)
        if dimension == "attribute":
            for kind in KINDS:
                found |= _no_answer_metrics(f"{kind}_", kind, 1, 0.0001)
    return found


def score_metric() -> Derived:
    """The paper's AMBER score, (100 - CHAIR + F1) / 2, in percent points."""
    return Derived(
        label="AMBER score",
        kind="linear",
        parts={"chair": -50, "f1": 50},
        constant=50,
        higher_is_better=True,
        unit="number",
    )


def _ratio(
    label: str,
    top: str,
    bottom: str,
    *,
    better: bool,
    primary: bool = False,
    group: str = "generative",
    starts: int = 1,
) -> Metric:
    """A ratio whose denominator adds up `starts` counters that start at `START`; an empty `bottom` counts items."""
    return Metric(
        label=label,
        numerator={top: 1},
        denominator={bottom: 1} if bottom else {},
        epsilon=starts * START,
        group=group,
        higher_is_better=better,
        primary=primary,
    )


def _no_answer_metrics(prefix: str, group: str, starts: int, epsilon: float) -> dict[str, AnyMetric]:
    title = f" ({group})" if prefix else ""

    def ratio(label: str, top: str, bottom: str) -> Metric:
        return _ratio(label + title, top, bottom, better=True, group=group, starts=starts)

    return {
        f"{prefix}accuracy": ratio("Accuracy", "right", ""),
        f"{prefix}precision": ratio("Precision of No", "no_and_true", "says_no"),
        f"{prefix}recall": ratio("Recall of No", "no_and_right", "is_no"),
        f"{prefix}f1": Derived(
            label=f"F1 of No{title}",
            kind="harmonic",
            parts={f"{prefix}precision": 1, f"{prefix}recall": 1},
            decimals=3,
            epsilon=epsilon,
            higher_is_better=True,
            primary=not prefix,
        ),
    }


GENERATIVE, DISCRIMINATIVE = "generative", "discriminative"
_DESCRIBE = "Describe this image."
_QUERIES = ("query_all.json", "query_generative.json", "query_discriminative.json")


@dataclass(frozen=True)
class Lists:
    """`association` maps a word to its synonyms; words in `safe` are never counted as absent."""

    association: Mapping[str, Sequence[str]] = field(default_factory=dict)
    safe: frozenset[str] = frozenset()

    @cached_property
    def known(self) -> frozenset[str]:
        """The only words that AMBER counts."""
        return frozenset(self.association).union(*self.association.values())

    def targets(self, words: Sequence[str]) -> list[tuple[str, int]]:
        """(name, index of the word that it names), in the script's order: all associations, then the words."""
        associated = [(other, index) for index, word in enumerate(words) for other in self.association.get(word, ())]
        return associated + [(word, index) for index, word in enumerate(words)]


@dataclass(frozen=True)
class NounVerdict:
    """Whether each noun is absent; indices of the true and of the expected hallucinated objects that were named."""

    absent: tuple[bool, ...]
    covered: frozenset[int]
    expected: frozenset[int]


def classify_nouns(
    nouns: Sequence[str], truth: Sequence[str], hallu: Sequence[str], lists: Lists, tools: NounTools
) -> NounVerdict:
    """Classify nouns as in the script, by the first equal and the first similar target; equality takes precedence."""
    present, likely = lists.targets(truth), lists.targets(hallu)
    absent, covered, expected = [], set(), set()
    for noun in nouns:
        named = None if noun in lists.safe else _first_equal(noun, present)
        if noun in lists.safe or named is not None:
            absent.append(False)
            covered |= set() if named is None else {named}
            continue
        found = {_first_equal(noun, likely), _first_alike(noun, likely, tools)}
        expected |= {index for index in found if index is not None}
        alike = _first_alike(noun, present, tools)
        covered |= set() if alike is None else {alike}
        absent.append(alike is None)
    return NounVerdict(tuple(absent), frozenset(covered), frozenset(expected))


def _first_equal(noun: str, targets: Sequence[tuple[str, int]]) -> int | None:
    return next((index for word, index in targets if word == noun), None)


def _first_alike(noun: str, targets: Sequence[tuple[str, int]], tools: NounTools) -> int | None:
    if tools.alike is None:
        return None
    return next((index for word, index in targets if tools.alike(noun, word)), None)


def amber(name: str, options: BenchmarkOptions) -> "Amber":
    """AMBER, whole or one part of it.

    Raises:
        InputError: annotations.json is missing, or, if descriptions are scored, relation.json or safe_words.txt.
    """
    part = options.split or name.removeprefix("amber").removeprefix("-")
    annotations = official_file(name, options.folder, "annotations.json")
    lists = Lists()
    if part in ("", GENERATIVE):
        relation = official_file(name, options.folder, "relation.json")
        safe = official_file(name, options.folder, "safe_words.txt").read_text(encoding="utf-8").split("\n")
        lists = Lists(_association(relation), frozenset(safe))
    folder = options.images or options.folder
    return Amber(name, annotations, folder, lists, part, options.limit, installed_tools())


@dataclass(frozen=True)
class Amber:
    """`part` is empty for all, or generative, discriminative, existence, attribute or relation."""

    name: str
    annotations: Path
    folder: Path
    lists: Lists
    part: str
    limit: int | None
    tools: NounTools
    max_new_tokens: int = 512
    refuses_repeats: bool = True

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        found: dict[str, AnyMetric] = {}
        if self.part in ("", GENERATIVE):
            found |= generative_metrics(self.tools)
        if self.part != GENERATIVE:
            found |= discriminative_metrics(self.part)
        return found if self.part else {**found, "amber_score": score_metric()}

    @property
    def caveats(self) -> tuple[str, ...]:
        if self.part not in ("", GENERATIVE) or not self.tools.missing_tools:
            return ()
        return (
            f"descriptions are scored with {' and '.join(self.tools.missing_tools)};"
            " see docs/reference/benchmarks.md, AMBER",
        )

    @cached_property
    def queries(self) -> Mapping[int, tuple[str, str]]:
        """Image and question by id; empty without the query files, which scoring does not need."""
        folder = self.annotations.parent
        found = (folder / above / name for above in (".", "query") for name in _QUERIES)
        rows = [row for path in found if path.is_file() for row in json_lines(path)]
        try:
            return {row["id"]: (row["image"], row["query"]) for _, row in rows}
        except KeyError as error:
            raise InputError(f"{folder}: a query lacks {error}; fetch AMBER's query files again") from error

    def samples(self) -> Iterator[Sample]:
        pictures: set[str] = set()
        for where, row in json_lines(self.annotations):
            number, kind, truth = whole_id(row.get("id")), row.get("type"), row.get("truth")
            if not isinstance(number, int) or not isinstance(kind, str) or truth is None:
                raise InputError(f"{where}: {shorten(row)} lacks id, type or truth; fetch annotations.json again")
            if kind != GENERATIVE:
                truth = _label(truth, where)
            if self.part and self.part not in type_groups(kind):
                continue
            default = f"AMBER_{number}.jpg" if kind == GENERATIVE else ""
            image, prompt = self.queries.get(number, (default, _DESCRIBE if default else ""))
            pictures.add(image)
            if self.limit is not None and len(pictures) > self.limit:
                return
            yield Sample(
                id=str(number),
                images=(image,) if image else (),
                prompt=prompt,
                task="description" if kind == GENERATIVE else "yes-no",
                cluster=image or str(number),
                truth={"kind": kind, "truth": truth, "hallu": row.get("hallu", [])},
            )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return type_groups(sample.truth["kind"])

    def score(self, sample: Sample, answer: Answer) -> Score:
        describes = sample.truth["kind"] == GENERATIVE
        values, details = (self._description if describes else _yes_no)(sample, answer)
        return Score(
            sample_id=sample.id, cluster=sample.cluster, groups=self.groups(sample), values=values, details=details
        )

    def _description(self, sample: Sample, answer: Answer) -> tuple[dict[str, float | None], dict[str, Any]]:
        truth, hallu = sample.truth["truth"], sample.truth["hallu"]
        nouns = self.tools.nouns(answer.text, self.lists.known)
        verdict = classify_nouns([noun.text for noun in nouns], truth, hallu, self.lists, self.tools)
        absent = [noun for noun, is_absent in zip(nouns, verdict.absent, strict=True) if is_absent]
        values: dict[str, float | None] = {
            "absent_nouns": float(len(absent)),
            "nouns": float(len(nouns)),
            "covered": float(len(verdict.covered)),
            "present": float(len(truth)),
            "expected_named": float(len(verdict.expected)),
            "expected": float(len(hallu)),
            "clean": float(not absent),
            # Without vectors, the script might accept an absent noun as similar to a true one.
            DECIDED_BY_QUIRK: float(bool(absent) and self.tools.alike is None),
        }
        details = {
            "hallucinated": [noun.span for noun in absent],
            "absent": [noun.text for noun in absent],
            "nouns": "nltk" if self.tools.official_nouns else "own",
            "similarity": "none" if self.tools.alike is None else "en_core_web_lg",
        }
        return values, details


def type_groups(kind: str) -> tuple[str, ...]:
    """The parts that a type of question belongs to; types unknown to the script count as relation."""
    if kind == GENERATIVE:
        return (GENERATIVE,)
    known = {"discriminative-hallucination": ("existence",)} | {
        f"discriminative-attribute-{name}": ("attribute", name) for name in KINDS
    }
    return (DISCRIMINATIVE, *known.get(kind, ("relation",)))


def _yes_no(sample: Sample, answer: Answer) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Only exactly "Yes" and "No" are answers; anything else is wrong."""
    is_no, says_no = sample.truth["truth"] != "yes", answer.text == "No"
    right = says_no if is_no else answer.text == "Yes"
    values: dict[str, float | None] = {
        "right": float(right),
        "is_no": float(is_no),
        "says_no": float(says_no),
        # The script compares with truth "no" in one place and with truth other than "yes" in another.
        "no_and_right": float(says_no and is_no),
        "no_and_true": float(says_no and sample.truth["truth"] == "no"),
        DECIDED_BY_QUIRK: float(answer.text not in ("Yes", "No")),
    }
    return values, {"answer": answer.text[:80], "truth": sample.truth["truth"]}


def _label(truth: object, where: str) -> str:
    """The truth, yes or no. The script treats other labels inconsistently; here they are refused."""
    label = truth.strip().lower() if isinstance(truth, str) else ""
    if label not in ("yes", "no"):
        raise InputError(f"{where}: truth = {shorten(truth)} is neither yes nor no; correct the row")
    return label


def _association(path: Path) -> dict[str, list[str]]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict) or not all(isinstance(words, list) for words in value.values()):
        raise InputError(f"{path} is not an object {{word: [word, ...]}}; fetch AMBER's relation.json again")
    return value
