"""Sentence-level beam search for the best and the worst answer: calibrated self-rewarding (CSR, arXiv 2405.14622).

Each beam is continued by several candidate sentences. A sentence's reward is lambda R_I + (1 - lambda) R_T: R_I is a
judge's score of sentence and image (CLIPScore in the paper), R_T the model's own probability of the sentence without
the image. The answer with the highest mean reward is chosen over the one with the lowest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, SampledConfig, batched, make_pair, sample_rng
from sightline.judges.judge import Judge
from sightline.judges.length_control import JudgeConfig
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import encode_prefill, encode_prefix, fits
from sightline.models.requests import (
    GenerateRequest,
    Generation,
    Prefix,
    ScoreRequest,
    judge_input,
    make_prefix,
    without_pictures,
)
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps
from sightline.records import Sample

UNSCORED, ALIKE = "the judge scored no sentence", "all beams say the same"
_PURPOSE = 1005


class BeamConfig(SampledConfig):
    """Settings of CSR. The paper: lambda 0.9, CLIPScore; it gives no widths.

    Each round keeps the `beams` best and the `beams` worst beams by mean reward.
    """

    judge: JudgeConfig = Field(description="the judge whose score of a sentence, divided by image_scale, is R_I")
    image_weight: float = Field(default=0.9, ge=0, le=1, description="lambda, the share of R_I")
    image_scale: float = Field(
        default=1.0, gt=0, description="divides the judge's score to give R_I; 100 for CLIPScore"
    )
    beams: int = Field(default=2, ge=1, description="beams kept at each end")
    branches: int = Field(default=3, ge=2, description="sentences sampled per beam")
    sentences: int = Field(default=8, ge=1, description="maximum sentences per answer")
    wave: int = Field(default=16, gt=0, description="samples in flight")


@dataclass(frozen=True)
class _Beam:
    """An answer so far, the rewards of its sentences, and whether it has ended."""

    text: str = ""
    rewards: tuple[float, ...] = ()
    ended: bool = False

    @property
    def mean(self) -> float:
        return sum(self.rewards) / max(1, len(self.rewards))


@dataclass
class _Search:
    """The beams of one sample."""

    sample: Sample
    prefix: Prefix
    beams: list[_Beam]
    tokens: int = 0
    unscored: int = 0


def build_beam(samples: Iterable[Sample], context: RunContext, config: BeamConfig) -> Iterator[BuildResult]:
    """Yield one pair per sample; a row depends on (sample, seed) and the judge alone."""
    judge = config.judge.open(context)
    for wave in batched(samples, config.wave):
        searches = [_Search(sample, make_prefix(sample, context.folder), [_Beam()]) for sample in wave]
        fitting = [fits(context.vlm, s.prefix, "", config.max_new_tokens * config.sentences) for s in searches]
        running = [search for search, fit in zip(searches, fitting, strict=True) if fit]
        for number in range(config.sentences):
            running = [search for search in running if any(not beam.ended for beam in search.beams)]
            if not running:
                break
            _advance(running, number, context, config, judge)
        for search, fit in zip(searches, fitting, strict=True):
            yield _make_result(search, judge) if fit else BuildResult(sample_id=search.sample.id, dropped=TOO_LONG)


def _advance(searches: Sequence[_Search], number: int, context: RunContext, config: BeamConfig, judge: Judge) -> None:
    """Grow every open beam of every sample by one sentence: one call each of the sampler, the scorer and the judge."""
    grown: list[tuple[_Search, _Beam, GenerateRequest]] = []
    for search in searches:
        rng = sample_rng(context.seed, search.sample, _PURPOSE, number)
        for beam in (beam for beam in search.beams if not beam.ended):
            for seed in rng.integers(2**63, size=config.branches):
                grown.append((search, beam, GenerateRequest(search.prefix, beam.text, seed=int(seed))))
    requests = [request for _, _, request in grown]
    generations = generate(
        context.vlm, requests, config.sampling((".",)), batch_size=config.batch_size, autocast=config.autocast
    )
    sentences = [
        judge_input(search.sample, context.folder, one.text.strip())
        for (search, _, _), one in zip(grown, generations, strict=True)
    ]
    image = [verdict.score for verdict in judge.score(sentences)]
    text = _text_rewards(grown, generations, context, config)
    beams: dict[int, list[_Beam]] = {id(search): [b for b in search.beams if b.ended] for search in searches}
    for (search, beam, _), one, r_image, r_text in zip(grown, generations, image, text, strict=True):
        search.tokens += one.tokens
        if not one.text.strip():  # empty continuation: the beam is a complete answer
            beams[id(search)].append(replace(beam, ended=True))
        elif r_image is None:
            search.unscored += 1
        else:
            reward = config.image_weight * r_image / config.image_scale + (1 - config.image_weight) * r_text
            beams[id(search)].append(_Beam(beam.text + one.text, (*beam.rewards, reward), not one.text.endswith(".")))
    for search in searches:
        search.beams = _best_and_worst(beams[id(search)], config.beams)


def _text_rewards(
    grown: Sequence[tuple[_Search, _Beam, GenerateRequest]],
    generations: Sequence[Generation],
    context: RunContext,
    config: BeamConfig,
) -> list[float]:
    """R_T: the geometric mean probability of the sentence's tokens without the image; 0 for an empty sentence."""
    rewards = [0.0] * len(grown)
    nonempty = [place for place, one in enumerate(generations) if one.text.strip()]
    for start in range(0, len(nonempty), config.batch_size):
        places = nonempty[start : start + config.batch_size]
        items, before = [], []
        for place in places:
            search, beam, _ = grown[place]
            blind = without_pictures(search.prefix)
            prefix = encode_prefix(context.vlm, blind)
            known = encode_prefill(context.vlm, prefix, beam.text)
            before.append(len(known.ids) - known.start)
            items.append(ScoreRequest(blind, ((beam.text + generations[place].text).rstrip(),)))
        with torch.no_grad():
            logps = answer_logps(context.vlm, items, autocast=config.autocast)
        for place, values, length, first in zip(
            places, logps.values, logps.lengths()[:, 0].tolist(), before, strict=True
        ):
            sentence = values[0, min(first, length - 2) : length - 1]  # without the end of turn
            rewards[place] = float(sentence.mean().exp())
    return rewards


def _best_and_worst(beams: Sequence[_Beam], count: int) -> list[_Beam]:
    """Return the `count` best and the `count` worst beams, each text once."""
    order = sorted({beam.text: beam for beam in beams}.values(), key=lambda beam: -beam.mean)
    return order if len(order) <= 2 * count else [*order[:count], *order[-count:]]


def _make_result(search: _Search, judge: Judge) -> BuildResult:
    sample = search.sample
    tallies = {"generated_tokens": float(search.tokens), "unscored_sentences": float(search.unscored)}
    order = sorted((beam for beam in search.beams if beam.rewards), key=lambda beam: -beam.mean)
    if len(order) < 2:
        return BuildResult(sample_id=sample.id, dropped=ALIKE if order else UNSCORED, tallies=tallies)
    best, worst = order[0], order[-1]
    provenance = {
        "chosen_reward": best.mean,
        "rejected_reward": worst.mean,
        "judge": judge.identity,
        "tokens": search.tokens,
    }
    pair = make_pair(sample, BEAM.name, best.text, worst.text, provenance=provenance)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies=tallies)


BEAM = Builder(
    name="beam",
    summary="Search sentence by sentence for the best and the worst answer (CSR, arXiv 2405.14622).",
    config=BeamConfig,
    build=build_beam,
    remedy="raise temperature or branches, or use another judge",
)
