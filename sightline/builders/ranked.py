"""Several answers of the policy to each prompt, graded by a judge, paired by their scores (VLFeedback, 2312.10665).

An unscored answer is in no pair, and equal scores make none; both are counted. Where the paper is silent, the choice
stands in `RankedConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, batched, make_pair
from sightline.builders.sampled_answers import AnswersConfig, distinct, k_requests, say, tokens_of
from sightline.data.sentences import count_words
from sightline.judges.judge import Judge, Verdict
from sightline.judges.length_control import JudgeConfig
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import Generation, judge_input, prefix_of
from sightline.records import Pair, Sample

NAME = "ranked"
ALIKE = "fewer than two different answers"
UNSCORED = "fewer than two answers were scored"
TIED = "all scores are equal"
CLOSE = "no two scores differ by the margin"
CUT_OFF = "max_new_tokens cut every better answer off"


class RankedConfig(AnswersConfig):
    """Settings of ranked pairs. The paper: four answers, graded from 1 to 5 in three aspects, pairs by their mean."""

    judge: JudgeConfig
    answers: int = Field(default=4, ge=2, description="answers sampled to each prompt")
    pairs: Literal["best-worst", "all", "adjacent", "length-balanced"] = Field(
        default="all", description="the two ends, any two, neighbors in the order of scores, or those of like length"
    )
    most: int | None = Field(default=None, ge=1, description="pairs of one prompt")
    aspects: tuple[str, ...] = Field(
        default=(), description="the score is the mean of these of the judge's aspects; empty: the judge's own score"
    )
    margin: float = Field(default=0.0, ge=0, description="the least difference of scores; above 0 in any case")


@dataclass(frozen=True)
class Graded:
    """An answer with its score and what the judge said."""

    answer: Generation
    score: float
    verdict: Verdict


def build_ranked(samples: Iterable[Sample], tools: RunContext, config: RankedConfig) -> Iterator[BuildResult]:
    """The pairs of each sample, in order; a row depends on (sample, seed) and the judge alone."""
    return ranked(samples, tools, config, config.judge.open(tools))


def ranked(
    samples: Iterable[Sample], tools: RunContext, config: RankedConfig, judge: Judge, name: str = NAME
) -> Iterator[BuildResult]:
    """The same with a judge that is open already, under a builder's name."""
    for wave in batched(samples, config.wave):
        asked = [k_requests(s, prefix_of(s, tools.folder), tools.seed, config.answers) for s in wave]
        said = say(tools, asked, config)
        # One answer to choose from is nothing to ask the judge about.
        candidates = [found if len(found := distinct(answers or ())) > 1 else [] for answers in said]
        to_judge = zip(wave, candidates, strict=True)
        verdicts = iter(
            judge.score([judge_input(s, tools.folder, a.text.strip()) for s, found in to_judge for a in found])
        )
        for sample, answers, found in zip(wave, said, candidates, strict=True):
            theirs = [(answer, next(verdicts)) for answer in found]
            yield _made(sample, answers, theirs, config, {"builder": name, "judge": judge.identity})


def score_of(verdict: Verdict, aspects: Sequence[str]) -> float | None:
    """The judge's own score, or the mean over the named aspects; None where it, or one of them, is missing."""
    if verdict.score is None or not set(aspects) <= verdict.aspects.keys():
        return None
    return sum(verdict.aspects[name] for name in aspects) / len(aspects) if aspects else verdict.score


def pairs_by_score(
    graded: Sequence[Graded], config: RankedConfig
) -> tuple[list[tuple[Graded, Graded]], dict[str, float]]:
    """Better and worse, the clearest difference first, with the numbers of pairs left out as ties and as too close.

    Of equal scores the earlier answer stands first. An answer that was cut off is the better one only where the config
    says so, and then the best one is the best that was not.
    """
    order = sorted(graded, key=lambda each: -each.score)
    may_win = [each for each in order if each.answer.finished or config.unfinished]
    if config.pairs == "best-worst":
        candidates = [(may_win[0], order[-1])] if may_win and may_win[0] is not order[-1] else []
    else:
        taken = pairwise(order) if config.pairs == "adjacent" else combinations(order, 2)
        candidates = [(better, worse) for better, worse in taken if better.answer.finished or config.unfinished]
    apart = [(better, worse) for better, worse in candidates if better.score > worse.score]
    kept = [(better, worse) for better, worse in apart if better.score - worse.score >= config.margin]
    kept.sort(key=lambda both: both[1].score - both[0].score)
    if config.pairs == "length-balanced":
        kept.sort(key=_difference_of_length)
    kept = kept[: config.most]
    return kept, {"tied_pairs": len(candidates) - len(apart), "close_pairs": len(apart) - len(kept)}


def _difference_of_length(both: tuple[Graded, Graded]) -> int:
    lengths = [count_words(each.answer.text) for each in both]
    return abs(lengths[0] - lengths[1])


def _made(
    sample: Sample,
    answers: Sequence[Generation] | None,
    verdicts: Sequence[tuple[Generation, Verdict]],
    config: RankedConfig,
    by: dict[str, str],
) -> BuildResult:
    if answers is None:
        return BuildResult(sample_id=sample.id, dropped=TOO_LONG)
    scored = [(answer, score_of(verdict, config.aspects), verdict) for answer, verdict in verdicts]
    graded = [Graded(answer, score, verdict) for answer, score, verdict in scored if score is not None]
    chosen, left_out = pairs_by_score(graded, config)
    tallies = {
        "generated_tokens": tokens_of(answers),
        "judged_answers": len(verdicts),
        "unscored_answers": len(verdicts) - len(graded),
        "unfinished_answers": sum(not answer.finished for answer in answers),
        **left_out,
    }
    if not chosen:
        return BuildResult(sample_id=sample.id, dropped=_reason(verdicts, graded, config), tallies=tallies)
    shared = {"judge": by["judge"], "answers": len(answers), "tokens": tokens_of(answers)}
    pairs = tuple(_pair(sample, f"{by['builder']}-{number:03d}", *both, shared) for number, both in enumerate(chosen))
    return BuildResult(sample_id=sample.id, pairs=pairs, tallies=tallies)


def _pair(sample: Sample, name: str, better: Graded, worse: Graded, shared: dict[str, Any]) -> Pair:
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


def _reason(verdicts: Sequence[object], graded: Sequence[Graded], config: RankedConfig) -> str:
    """Why no two answers make a pair."""
    if not verdicts:
        return ALIKE
    if len(graded) < 2:
        return UNSCORED
    if len({each.score for each in graded}) == 1:
        return TIED
    eager = config.model_copy(update={"unfinished": True})
    return CUT_OFF if pairs_by_score(graded, eager)[0] else CLOSE


RANKED = Builder(
    name=NAME,
    summary="Sample several answers, let a judge grade them, pair them by score (VLFeedback, arXiv 2312.10665).",
    config=RankedConfig,
    build=build_ranked,
    remedy="sample more answers at a higher temperature, lower the margin, or ask another judge",
)
