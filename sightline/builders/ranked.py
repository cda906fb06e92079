"""Several sampled answers per prompt, graded by a judge and paired by score (VLFeedback, arXiv 2312.10665).

Unscored answers are in no pair, and equal scores make none; both are counted. Choices that the paper leaves open are in
`RankedConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, batched, make_pair
from sightline.builders.sampled_answers import (
    AnswersConfig,
    Unanswered,
    answer_requests,
    count_tokens,
    distinct_answers,
    sample_answers,
)
from sightline.data.texts import count_words
from sightline.judges.judge import Judge, Verdict
from sightline.judges.length_control import JudgeConfig
from sightline.models.context import RunContext
from sightline.models.requests import Generation, judge_input, make_prefix
from sightline.records import Pair, Sample

NAME = "ranked"
ALIKE = "fewer than two different answers"
UNSCORED = "fewer than two answers were scored"
TIED = "all scores are equal"
CLOSE = "no two scores differ by the margin"
CUT_OFF = "max_new_tokens cut every better answer off"


class RankedConfig(AnswersConfig):
    """Settings of ranked pairs. The paper: four answers, graded from 1 to 5 in three aspects, pairs by their mean."""

    judge: JudgeConfig = Field(description="the judge that scores the answers")
    answers: int = Field(default=4, ge=2, description="answers sampled per prompt")
    pairs: Literal["best-worst", "all", "adjacent", "length-balanced"] = Field(
        default="all", description="best with worst, any two, neighbors by score, or those of most equal length"
    )
    most: int | None = Field(default=None, ge=1, description="maximum pairs per prompt")
    aspects: tuple[str, ...] = Field(
        default=(), description="average these aspects of the judge; empty: use the judge's own score"
    )
    margin: float = Field(default=0.0, ge=0, description="minimum score difference; equal scores never pair")


@dataclass(frozen=True)
class GradedAnswer:
    """An answer with its score and the judge's verdict."""

    answer: Generation
    score: float
    verdict: Verdict


def build_ranked(samples: Iterable[Sample], context: RunContext, config: RankedConfig) -> Iterator[BuildResult]:
    """Yield each sample's result, in order; a row depends on (sample, seed) and the judge alone."""
    return build_with_judge(samples, context, config, config.judge.open(context))


def build_with_judge(
    samples: Iterable[Sample], context: RunContext, config: RankedConfig, judge: Judge, name: str = NAME
) -> Iterator[BuildResult]:
    """Do the same with an open judge, under another builder's name."""
    for wave in batched(samples, config.wave):
        requests = [answer_requests(s, make_prefix(s, context.folder), context.seed, config.answers) for s in wave]
        sampled = sample_answers(context, requests, config)
        # The judge sees only samples with two distinct answers or more.
        candidates = [found if len(found := distinct_answers(answers)) > 1 else [] for answers in sampled]
        to_judge = zip(wave, candidates, strict=True)
        verdicts = iter(
            judge.score([judge_input(s, context.folder, a.text.strip()) for s, found in to_judge for a in found])
        )
        for sample, answers, found in zip(wave, sampled, candidates, strict=True):
            judged = [(answer, next(verdicts)) for answer in found]
            yield _make_result(sample, answers, judged, config, {"builder": name, "judge": judge.identity})


def overall_score(verdict: Verdict, aspects: Sequence[str]) -> float | None:
    """Return the judge's own score, or the mean over the named aspects; None if it, or one of them, is missing."""
    if verdict.score is None or not set(aspects) <= verdict.aspects.keys():
        return None
    return sum(verdict.aspects[name] for name in aspects) / len(aspects) if aspects else verdict.score


def select_pairs(
    graded: Sequence[GradedAnswer], config: RankedConfig
) -> tuple[list[tuple[GradedAnswer, GradedAnswer]], dict[str, float]]:
    """Return (better, worse) pairs, largest difference first, and the numbers of pairs left out as ties and as too
    close.

    Among equal scores the earlier answer comes first. A truncated answer can be the better one only if the config
    allows it; otherwise the best answer is the best that is not truncated.
    """
    ranking = sorted(graded, key=lambda each: -each.score)
    eligible = [each for each in ranking if each.answer.finished or config.unfinished]
    if config.pairs == "best-worst":
        candidates = [(eligible[0], ranking[-1])] if eligible and eligible[0] is not ranking[-1] else []
    else:
        couples = pairwise(ranking) if config.pairs == "adjacent" else combinations(ranking, 2)
        candidates = [(better, worse) for better, worse in couples if better.answer.finished or config.unfinished]
    untied = [(better, worse) for better, worse in candidates if better.score > worse.score]
    kept = [(better, worse) for better, worse in untied if better.score - worse.score >= config.margin]
    kept.sort(key=lambda both: both[1].score - both[0].score)
    if config.pairs == "length-balanced":
        kept.sort(key=_length_difference)
    kept = kept[: config.most]
    return kept, {"tied_pairs": len(candidates) - len(untied), "close_pairs": len(untied) - len(kept)}


def _length_difference(both: tuple[GradedAnswer, GradedAnswer]) -> int:
    lengths = [count_words(each.answer.text) for each in both]
    return abs(lengths[0] - lengths[1])


def _make_result(
    sample: Sample,
    answers: Sequence[Generation] | Unanswered,
    verdicts: Sequence[tuple[Generation, Verdict]],
    config: RankedConfig,
    names: dict[str, str],
) -> BuildResult:
    if isinstance(answers, Unanswered):
        return answers.result(sample)
    scored = [(answer, overall_score(verdict, config.aspects), verdict) for answer, verdict in verdicts]
    graded = [GradedAnswer(answer, score, verdict) for answer, score, verdict in scored if score is not None]
    chosen, left_out = select_pairs(graded, config)
    tallies = {
        "generated_tokens": count_tokens(answers),
        "judged_answers": len(verdicts),
        "unscored_answers": len(verdicts) - len(graded),
        "unfinished_answers": sum(not answer.finished for answer in answers),
        **left_out,
    }
    if not chosen:
        return BuildResult(sample_id=sample.id, dropped=_reason(verdicts, graded, config), tallies=tallies)
    shared = {"judge": names["judge"], "answers": len(answers), "tokens": count_tokens(answers)}
    pairs = tuple(
        _pair(sample, f"{names['builder']}-{number:03d}", *both, shared) for number, both in enumerate(chosen)
    )
    return BuildResult(sample_id=sample.id, pairs=pairs, tallies=tallies)


def _pair(sample: Sample, name: str, better: GradedAnswer, worse: GradedAnswer, shared: dict[str, Any]) -> Pair:
    provenance = {
        "chosen_score": better.score,
        "rejected_score": worse.score,
        "chosen_aspects": better.verdict.aspects,
        "rejected_aspects": worse.verdict.aspects,
        "chosen_finished": better.answer.finished,
        "rejected_finished": worse.answer.finished,
        **shared,
    }
    texts = (better.answer.text, worse.answer.text)
    builder, _, number = name.rpartition("-")
    return make_pair(sample, builder, *texts, suffix=f"-{number}", provenance=provenance)


def _reason(verdicts: Sequence[object], graded: Sequence[GradedAnswer], config: RankedConfig) -> str:
    """Return the reason why no two answers make a pair."""
    if not verdicts:
        return ALIKE
    if len(graded) < 2:
        return UNSCORED
    if len({each.score for each in graded}) == 1:
        return TIED
    lenient = config.model_copy(update={"unfinished": True})
    return CUT_OFF if select_pairs(graded, lenient)[0] else CLOSE


RANKED = Builder(
    name=NAME,
    summary="Sample several answers, let a judge grade them, pair them by score (VLFeedback, arXiv 2312.10665).",
    config=RankedConfig,
    build=build_ranked,
    remedy="sample more answers at a higher temperature, lower the margin, or use another judge",
)
