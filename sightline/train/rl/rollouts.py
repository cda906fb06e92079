"""From prompts to scored answers: the policy as it is answers each `answers` times, a judge scores, the scale scales.

A prompt's answers share its pass in sampling. What is unscored is left out and counted, never zero. What a reward is
worth, token by token, is `credit`.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.builders.builder import sample_rng
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import SAMPLES, read_samples, samples_file
from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.models.requests import GenerateRequest, Generation, JudgeInput, Sampling, judge_input, prefix_of
from sightline.models.sampler import generate
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Row, Sample
from sightline.train.rl.config import RLConfig
from sightline.train.rl.rollout import Rollout, SampledAnswer

FILE = "reward_scale.json"


class RewardScale(Row):
    """Mean and deviation of `n` scores; `unscored` answers were left out."""

    mean: float
    std: float
    n: int = 0
    unscored: int = 0

    def __call__(self, score: float) -> float:
        """The score in deviations from the mean."""
        return (score - self.mean) / self.std


def measure(judge: Judge, asked: Sequence[JudgeInput]) -> RewardScale:
    """The scale by which these answers have mean 0 and deviation 1.

    Raises:
        InputError: fewer than two are scored, or all scores are the same.
    """
    verdicts = judge.score(asked)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    std = statistics.pstdev(scores) if len(scores) > 1 else 0.0
    if not std > 0:
        why = next((verdict.note for verdict in verdicts if verdict.score is None and verdict.note), "")
        raise InputError(
            f"rl.scale: the judge scored {len(scores)} of {len(asked)} answers{f' ({why})' if why else ''}, and not "
            "with two different scores, so that rewards have no scale; give rl.scale.by another value or more rows"
        )
    return RewardScale(mean=statistics.fmean(scores), std=std, n=len(scores), unscored=len(asked) - len(scores))


def answers_in(place: Path) -> Iterator[JudgeInput]:
    """The answers that the data have: chosen and rejected ones of pairs, or else references."""
    if place.is_dir() and not (place / SAMPLES).exists():
        for pair in read_pairs(place):
            prefix, known = prefix_of(pair, place.absolute()), pair.provenance.get("truth")
            truth = known if isinstance(known, dict) else {}
            yield from (JudgeInput(prefix, answer, pair.chosen, truth) for answer in (pair.chosen, pair.rejected))
        return
    folder = samples_file(place).parent.absolute()
    for sample in read_samples(place):
        if sample.reference:
            yield judge_input(sample, folder, sample.reference)


_ROLLOUTS = 2001  # what the random stream is for; builders have other numbers


@dataclass(frozen=True)
class Asker:
    """The policy, where the samples' images are, and how they are asked."""

    vlm: VLM
    folder: Path
    config: RLConfig
    seed: int
    autocast: bool

    def ask(self, samples: Sequence[Sample], draw: int) -> list[list[Generation]]:
        """The policy's answers to each sample; they depend on (seed, draw, sample) and the policy's weights alone.

        Draws count from 0; -1 is before training.
        """
        count = self.config.answers
        requests = [
            GenerateRequest(prefix_of(sample, self.folder), seed=int(number))
            for sample in samples
            for number in sample_rng(self.seed, sample, _ROLLOUTS, draw + 1).integers(2**63, size=count)
        ]
        said = generate(
            self.vlm,
            requests,
            Sampling(self.config.max_new_tokens, temperature=1.0),  # whatever else were not the policy's own gradient
            batch_size=self.config.sampling_batch,
            autocast=self.autocast,
        )
        return [said[start : start + count] for start in range(0, len(said), count)]

    def judge_inputs(self, samples: Sequence[Sample], said: Sequence[Sequence[Generation]]) -> list[JudgeInput]:
        """The answers as a judge is shown them, prompt by prompt."""
        return [
            judge_input(sample, self.folder, answer.text.strip())
            for sample, answers in zip(samples, said, strict=True)
            for answer in answers
        ]


@dataclass(frozen=True)
class Sampled:
    """Rollouts without credit yet, and how many answers the judge left unscored; prompts with too few are not there."""

    rollouts: list[Rollout]
    unscored: int
    note: str  # what the judge said of one that it did not score


def sample_rollouts(asker: Asker, samples: Sequence[Sample], draw: int, judge: Judge, scale: RewardScale) -> Sampled:
    """Ask, judge, and keep what was scored."""
    said = asker.ask(samples, draw)
    with evaluating(asker.vlm):  # the policy may be the judge
        verdicts = judge.score(asker.judge_inputs(samples, said))
    rest = iter(verdicts)
    rollouts = []
    for sample, answers in zip(samples, said, strict=True):
        kept = [
            _said(answer, verdict.score, scale, asker.config.unfinished_penalty)
            for answer, verdict in zip(answers, rest, strict=False)
            if verdict.score is not None
        ]
        if len(kept) >= asker.config.least:
            rollouts.append(_rollout(sample, asker.folder, kept))
    unscored = [verdict for verdict in verdicts if verdict.score is None]
    note = next((verdict.note for verdict in unscored if verdict.note), "")
    return Sampled(rollouts, len(unscored), note)


def _said(answer: Generation, score: float, scale: RewardScale, penalty: float) -> SampledAnswer:
    reward = scale(score) - (0.0 if answer.finished else penalty)
    return SampledAnswer(ids=answer.ids, finished=answer.finished, score=score, reward=reward)


def _rollout(sample: Sample, folder: Path, answers: Sequence[SampledAnswer]) -> Rollout:
    images = tuple(str(path) for path in prefix_of(sample, folder).images)
    return Rollout(
        sample_id=sample.id,
        images=images,
        media=sample.media,
        history=sample.history,
        prompt=sample.prompt,
        answers=tuple(answers),
    )
