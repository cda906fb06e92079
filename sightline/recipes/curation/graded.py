"""Pairs of graded questions or answers, to train the two reward models of Align2LLaVA (arXiv 2409.18541).

Every two candidates about one image with unequal scores make a pair, and some candidates are paired with a corrupted
copy of themselves. Scores come from people or a judge. Candidates are samples: an image's questions are its samples,
and a question's answers are the samples that ask it.
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
from sightline.recipes.curation.conversations import QUESTION_REQUEST, answer_input, question_input, split_turns
from sightline.recipes.curation.scoring import Key, read_grades
from sightline.records import IMAGE, Pair, Sample, Turn

NAME = "graded"
ALIKE, UNSCORED = "no two candidates of unequal score", "fewer than two candidates have a score"
_PURPOSE = 2700
_CANDIDATES = "candidates"
#: Names of the two answers in grades of pairs.
_OF_PAIRS = ("chosen", "rejected")


class GradedConfig(Config):
    """The kind of candidates, and the grader: a judge, or people (`records.Grade` rows, criteria weighted)."""

    by: Literal["questions", "answers"] = Field(description="what the grades rate: the questions or the answers")
    judge: JudgeConfig | None = Field(default=None, description="the grading judge; null: `grades`")
    grades: Path | None = Field(default=None, description="file of human grades (`records.Grade` rows)")
    criteria: dict[str, float] = Field(default_factory=dict, description="weights of the grades' criteria; empty: all")
    augment: float = Field(
        default=0.25, ge=0, le=1, description="share of candidates that also meet a spoiled copy of themselves (paper)"
    )

    @model_validator(mode="after")
    def _check_source(self) -> "GradedConfig":
        if (self.judge is None) == (self.grades is None):
            raise ValueError("give either judge or grades")
        return self


@dataclass(frozen=True)
class Candidate:
    """A graded text: a question, or an answer to one; `name` distinguishes the answers of one sample."""

    sample: Sample
    text: str
    name: str = ""


def unequal_pairs(scores: Sequence[float]) -> list[tuple[int, int]]:
    """All (i, j) with score i above score j."""
    return [(i, j) for i, one in enumerate(scores) for j, other in enumerate(scores) if one > other]


def spoiled_copy(rng: np.random.Generator, text: str) -> str | None:
    """The text with its words shuffled, a third of them removed, or its second half cut; None if unchanged.

    The paper's code corrupts at random; the method is our choice. No word is added, so the image need not be known.
    """
    words = text.split()
    way = int(rng.integers(3))
    if way == 0:
        words = [words[i] for i in rng.permutation(len(words))]
    elif way == 1:
        words = [word for word in words if rng.random() >= 1 / 3]
    else:
        words = words[: (len(words) + 1) // 2]
    spoiled = " ".join(words)
    return spoiled if spoiled and spoiled != " ".join(text.split()) else None


def gather(samples: Iterable[Sample]) -> Iterator[Sample]:
    """One sample per image, with all questions about it. Holds all samples in memory."""
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


def build_graded(samples: Iterable[Sample], context: RunContext, config: GradedConfig) -> Iterator[BuildResult]:
    """The pairs of each image of `gather`; a row depends on (image, seed) and the judge only."""
    judge = None if config.judge is None else config.judge.open(context)
    grades = {} if config.grades is None else read_grades(config.grades, config.criteria)
    for group_sample in samples:
        candidates = [Sample.model_validate(row) for row in group_sample.truth[_CANDIDATES]]
        groups = _questions(candidates) if config.by == "questions" else _answers(candidates)
        scored = [_scores(group, context, judge, grades, config) for group in groups]
        pairs = [pair for group in scored for pair in _pairs(group, config)]
        pairs += [pair for group in scored for pair in _augmented_pairs(group, context, config)]
        enough = any(len(group) > 1 for group in scored)
        yield BuildResult(
            sample_id=group_sample.id,
            pairs=tuple(_number_pair(group_sample, number, pair) for number, pair in enumerate(pairs)),
            dropped="" if pairs else ALIKE if enough else UNSCORED,
            tallies={"candidates": sum(map(len, groups)), "scored_candidates": sum(map(len, scored))},
        )


def _questions(samples: Sequence[Sample]) -> list[list[Candidate]]:
    """One group: the different questions about the image."""
    found = {sample.prompt.replace(IMAGE, "").strip(): sample for sample in reversed(samples)}
    return [[Candidate(sample, text) for text, sample in reversed(found.items())]]


def _answers(samples: Sequence[Sample]) -> list[list[Candidate]]:
    """One group per question: its different answers; of a given pair, both answers."""
    groups: dict[tuple[str, ...], dict[str, Candidate]] = {}
    for sample in samples:
        group = groups.setdefault(tuple(turn.question for turn in split_turns(sample)), {})
        rejected = str(sample.truth.get(_OF_PAIRS[1]) or "")
        two = ((sample.reference, _OF_PAIRS[0]), (rejected, _OF_PAIRS[1])) if rejected else ((sample.reference, ""),)
        for text, name in two:
            group.setdefault((text or "").strip(), Candidate(sample, (text or "").strip(), name))
    return [list(group.values()) for group in groups.values()]


def _scores(
    group: Sequence[Candidate], context: RunContext, judge: Judge | None, grades: dict[Key, float], config: GradedConfig
) -> list[tuple[Candidate, float]]:
    if judge is None:
        found = [grades.get((one.sample.id, one.name)) for one in group]
    elif config.by == "questions":
        inputs = [question_input(one.sample, context.folder, one.text) for one in group]
        found = [verdict.score for verdict in judge.score(inputs)]
    else:
        inputs = [answer_input(one.sample, context.folder, split_turns(one.sample)[-1], one.text) for one in group]
        found = [verdict.score for verdict in judge.score(inputs)]
    return [(one, score) for one, score in zip(group, found, strict=True) if score is not None]


def _pairs(group: Sequence[tuple[Candidate, float]], config: GradedConfig) -> Iterator[Pair]:
    for i, j in unequal_pairs([score for _, score in group]):
        (better, high), (worse, low) = group[i], group[j]
        yield _pair(better, worse.text, config, {"chosen_score": high, "rejected_score": low})


def _augmented_pairs(
    group: Sequence[tuple[Candidate, float]], context: RunContext, config: GradedConfig
) -> Iterator[Pair]:
    for one, score in group:
        rng = sample_rng(context.seed, one.sample, _PURPOSE, len(one.name))
        spoiled = spoiled_copy(rng, one.text) if rng.random() < config.augment else None
        if spoiled is not None:
            yield _pair(one, spoiled, config, {"chosen_score": score, "spoiled": True})


def _pair(better: Candidate, rejected: str, config: GradedConfig, provenance: dict[str, object]) -> Pair:
    sample = better.sample
    history: tuple[Turn, ...] = sample.history
    prompt_fields = {"history": (), "prompt": QUESTION_REQUEST} if config.by == "questions" else {"history": history}
    provenance |= {"by": config.by}
    return make_pair(sample, NAME, better.text, rejected, provenance=provenance, **prompt_fields)


def _number_pair(group_sample: Sample, number: int, pair: Pair) -> Pair:
    return pair.model_copy(update={"id": f"{group_sample.id}/{NAME}-{number:04d}", "cluster": group_sample.cluster})


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
