"""From prompts to scored answers: the policy as it is answers each `answers` times, a judge scores, the scale scales.

A prompt's answers share its pass in sampling. What is unscored is left out and counted, never zero. What a reward is
worth, token by token, is `credit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.models.prompts import Generation, Request, Sampling, prefix_of
from sightline.models.sampler import generate
from sightline.models.vlm import VLM, evaluating
from sightline.pairs.builder import rng_of
from sightline.pairs.judges.base import Judge, Judged, judged
from sightline.records.rows import Sample
from sightline.train.rl.config import RLConfig
from sightline.train.rl.reward_scale import RewardScale
from sightline.train.rl.rollout import Rollout, Said

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
            Request(prefix_of(sample, self.folder), seed=int(number))
            for sample in samples
            for number in rng_of(self.seed, sample, _ROLLOUTS, draw + 1).integers(2**63, size=count)
        ]
        said = generate(
            self.vlm,
            requests,
            Sampling(self.config.max_new_tokens, temperature=1.0),  # whatever else were not the policy's own gradient
            batch_size=self.config.sampling_batch,
            autocast=self.autocast,
        )
        return [said[start : start + count] for start in range(0, len(said), count)]

    def judged(self, samples: Sequence[Sample], said: Sequence[Sequence[Generation]]) -> list[Judged]:
        """The answers as a judge is shown them, prompt by prompt."""
        return [
            judged(sample, self.folder, answer.text.strip())
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
        verdicts = judge.score(asker.judged(samples, said))
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


def _said(answer: Generation, score: float, scale: RewardScale, penalty: float) -> Said:
    reward = scale(score) - (0.0 if answer.finished else penalty)
    return Said(ids=answer.ids, finished=answer.finished, score=score, reward=reward)


def _rollout(sample: Sample, folder: Path, answers: Sequence[Said]) -> Rollout:
    images = tuple(str(path) for path in prefix_of(sample, folder).images)
    return Rollout(
        sample_id=sample.id,
        images=images,
        media=sample.media,
        history=sample.history,
        prompt=sample.prompt,
        answers=tuple(answers),
    )
