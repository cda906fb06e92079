"""Pairs of graded questions or answers, to train the two reward models of Align2LLaVA (arXiv 2409.18541) on.

Of candidates about one picture every two of unequal score make a pair, and now and then a candidate meets a spoiled
copy of itself. Scores are people's or a judge's; candidates are samples, so a picture's questions are its samples, and
a question's answers those samples that ask it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sightline.builders.builder import Builder, BuildResult, always, make_pair, sample_rng
from sightline.config import Config
from sightline.judges.judge import Judge
from sightline.judges.length_control import JudgeConfig
from sightline.models.context import RunContext
from sightline.recipes.curation.conversations import QUESTION_REQUEST, answer_judged, question_judged, turns_of
from sightline.recipes.curation.scoring import Key, read_grades
from sightline.records import IMAGE, Pair, Sample, Turn

NAME = "graded"
ALIKE, UNSCORED = "no two candidates of unequal score", "fewer than two candidates have a score"
_PURPOSE = 2700
_CANDIDATES = "candidates"
#: Why the two answers of a pair are told apart by these names in grades of pairs.
_OF_PAIRS = ("chosen", "rejected")


class GradedConfig(Config):
    """What is graded, and by whom: a judge, or people (`records.Grade` rows, criteria weighted)."""

    by: Literal["questions", "answers"]
    judge: JudgeConfig | None = None
    grades: Path | None = None
    criteria: dict[str, float] = Field(default_factory=dict, description="weights of the grades' criteria; empty: all")
    augment: float = Field(
        default=0.25, ge=0, le=1, description="share of candidates that also meet a spoiled copy of themselves (paper)"
    )

    @model_validator(mode="after")
    def _one_way(self) -> "GradedConfig":
        if (self.judge is None) == (self.grades is None):
            raise ValueError("give either judge or grades")
        return self


@dataclass(frozen=True)
class Candidate:
    """A text that was graded: a question, or an answer to one; `name` tells answers of one sample apart."""

    sample: Sample
    text: str
    name: str = ""


def unequal(scores: Sequence[float]) -> list[tuple[int, int]]:
    """All (i, j) with score i above score j."""
    return [(i, j) for i, one in enumerate(scores) for j, other in enumerate(scores) if one > other]


def spoiled_copy(rng: np.random.Generator, text: str) -> str | None:
    """A text with its words shuffled, a third of them lost, or its second half gone; None where it stays the same.

    The paper's code corrupts at random; how is our choice. No word is added, so that nobody need know the picture.
    """
    words = text.split()
    way = int(rng.integers(3))
    if way == 0:
        words = [words[i] for i in rng.permutation(len(words))]
    elif way == 1:
        words = [word for word in words if rng.random() >= 1 / 3]
    else:
        words = words[: (len(words) + 1) // 2]
    made = " ".join(words)
    return made if made and made != " ".join(text.split()) else None


def gather(samples: Iterable[Sample]) -> Iterator[Sample]:
    """A sample for each picture, with all that is asked about it. Memory holds all samples."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.cluster or "+".join(sample.images) or sample.id, []).append(sample)
    for name, group in groups.items():
        yield Sample(
            id=name,
            images=group[0].images,
            prompt=QUESTION_REQUEST,
            reference=group[0].reference,
            cluster=name,
            truth={_CANDIDATES: [sample.model_dump(mode="json") for sample in group]},
        )


def build_graded(samples: Iterable[Sample], tools: RunContext, config: GradedConfig) -> Iterator[BuildResult]:
    """The pairs of each picture of `gather`; a row depends on (picture, seed) and the judge alone."""
    judge = None if config.judge is None else config.judge.open(tools)
    grades = {} if config.grades is None else read_grades(config.grades, config.criteria)
    for picture in samples:
        told = [Sample.model_validate(row) for row in picture.truth[_CANDIDATES]]
        groups = _questions(told) if config.by == "questions" else _answers(told)
        scored = [_scores(group, tools, judge, grades, config) for group in groups]
        pairs = [pair for group in scored for pair in _pairs(group, config)]
        pairs += [pair for group in scored for pair in _augmented(group, tools, config)]
        enough = any(len(group) > 1 for group in scored)
        yield BuildResult(
            sample_id=picture.id,
            pairs=tuple(_numbered(picture, number, pair) for number, pair in enumerate(pairs)),
            dropped="" if pairs else ALIKE if enough else UNSCORED,
            tallies={"candidates": sum(map(len, groups)), "scored_candidates": sum(map(len, scored))},
        )


def _questions(told: Sequence[Sample]) -> list[list[Candidate]]:
    """One group: the different questions about the picture."""
    found = {sample.prompt.replace(IMAGE, "").strip(): sample for sample in reversed(told)}
    return [[Candidate(sample, text) for text, sample in reversed(found.items())]]


def _answers(told: Sequence[Sample]) -> list[list[Candidate]]:
    """A group for each question: its different answers; of a given pair both of them."""
    groups: dict[tuple[str, ...], dict[str, Candidate]] = {}
    for sample in told:
        group = groups.setdefault(tuple(turn.question for turn in turns_of(sample)), {})
        rejected = str(sample.truth.get(_OF_PAIRS[1]) or "")
        two = ((sample.reference, _OF_PAIRS[0]), (rejected, _OF_PAIRS[1])) if rejected else ((sample.reference, ""),)
        for text, name in two:
            group.setdefault((text or "").strip(), Candidate(sample, (text or "").strip(), name))
    return [list(group.values()) for group in groups.values()]


def _scores(
    group: Sequence[Candidate], tools: RunContext, judge: Judge | None, grades: dict[Key, float], config: GradedConfig
) -> list[tuple[Candidate, float]]:
    if judge is None:
        found = [grades.get((one.sample.id, one.name)) for one in group]
    elif config.by == "questions":
        asked = [question_judged(one.sample, tools.folder, one.text) for one in group]
        found = [verdict.score for verdict in judge.score(asked)]
    else:
        asked = [answer_judged(one.sample, tools.folder, turns_of(one.sample)[-1], one.text) for one in group]
        found = [verdict.score for verdict in judge.score(asked)]
    return [(one, score) for one, score in zip(group, found, strict=True) if score is not None]


def _pairs(group: Sequence[tuple[Candidate, float]], config: GradedConfig) -> Iterator[Pair]:
    for i, j in unequal([score for _, score in group]):
        (better, high), (worse, low) = group[i], group[j]
        yield _pair(better, worse.text, config, {"chosen_score": high, "rejected_score": low})


def _augmented(group: Sequence[tuple[Candidate, float]], tools: RunContext, config: GradedConfig) -> Iterator[Pair]:
    for one, score in group:
        rng = sample_rng(tools.seed, one.sample, _PURPOSE, len(one.name))
        spoiled = spoiled_copy(rng, one.text) if rng.random() < config.augment else None
        if spoiled is not None:
            yield _pair(one, spoiled, config, {"chosen_score": score, "spoiled": True})


def _pair(better: Candidate, rejected: str, config: GradedConfig, provenance: dict[str, object]) -> Pair:
    sample = better.sample
    history: tuple[Turn, ...] = sample.history
    asked = {"history": (), "prompt": QUESTION_REQUEST} if config.by == "questions" else {"history": history}
    provenance |= {"by": config.by}
    return make_pair(sample, NAME, better.text, rejected, provenance=provenance, **asked)


def _numbered(picture: Sample, number: int, pair: Pair) -> Pair:
    return pair.model_copy(update={"id": f"{picture.id}/{NAME}-{number:04d}", "cluster": picture.cluster})


GRADED = Builder(
    name=NAME,
    summary="Pair graded questions or answers for a reward model (Align2LLaVA, arXiv 2409.18541).",
    config=GradedConfig,
    build=build_graded,
    needs_model=False,
    needs_reference=always,
    gather=gather,
    remedy="give several questions to a picture, or several answers to a question, with grades that differ",
)
