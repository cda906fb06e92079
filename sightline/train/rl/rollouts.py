"""Rollouts: the policy's answers to prompts, token by token, sampled, scored by a judge and normalized.

The records are plain frozen rows, so that waiting rollouts fit into a checkpoint. A prompt's answers share its prefix
pass. Unscored answers are dropped and counted, never zero. `policy` computes the per-token advantages.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.builders.builder import sample_rng
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import SAMPLES, read_samples, samples_file
from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.models.packing import Ids
from sightline.models.requests import (
    GenerateRequest,
    Generation,
    JudgeInput,
    Prefix,
    Sampling,
    judge_input,
    make_prefix,
)
from sightline.models.sampler import generate
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Row, Sample, Turn
from sightline.train.rl.config import RLConfig

SCALE_FILE = "reward_scale.json"


class SampledAnswer(Row):
    """An answer: its tokens as sampled, including the end of turn unless it was truncated.

    `score` is the judge's raw score; `reward` is scaled, minus the penalty for unfinished answers, before any KL.
    Per-token numbers are those at sampling time: log-probs (nats) of policy and reference, advantages and, with a value
    head, values and their target returns.
    """

    ids: Ids
    finished: bool
    score: float
    reward: float
    logps: tuple[float, ...] = ()
    ref_logps: tuple[float, ...] = ()
    advantages: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()


class Rollout(Row):
    """A prompt with absolute image paths, and its scored answers."""

    sample_id: str
    images: tuple[str, ...]
    media: tuple[str, ...] = ()
    history: tuple[Turn, ...]
    prompt: str
    answers: tuple[SampledAnswer, ...]

    @property
    def prefix(self) -> Prefix:
        """The prompt."""
        return Prefix(tuple(map(Path, self.images)), self.prompt, self.history, self.media)

    @property
    def tokens(self) -> int:
        """The number of tokens of all answers."""
        return sum(len(answer.ids) for answer in self.answers)


def token_mask(lengths: Sequence[int], device: torch.device | None = None) -> Bool[Tensor, "row token"]:
    """True on the tokens of each row, aligned left."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(int(counts.max()), device=device) < counts[:, None]


def table(flat: Float[Tensor, "answer_token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token"]:
    """The flat numbers as padded rows, 0 after each row's last token."""
    return torch.zeros_like(mask, dtype=flat.dtype).masked_scatter(mask, flat)


def table_from_rows(
    rows: Iterable[Sequence[float]], mask: Bool[Tensor, "row token"], dtype: torch.dtype
) -> Float[Tensor, "row token"]:
    """The same from lists of numbers."""
    return table(torch.tensor([number for row in rows for number in row], dtype=dtype, device=mask.device), mask)


def table_rows(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> list[tuple[float, ...]]:
    """Each row's numbers, without the padding."""
    lengths = mask.sum(1).tolist()
    return [tuple(row[:length]) for row, length in zip(values.tolist(), lengths, strict=True)]


class RewardScale(Row):
    """Mean and deviation of `n` scores; `unscored` answers were left out."""

    mean: float
    std: float
    n: int = 0
    unscored: int = 0

    def __call__(self, score: float) -> float:
        """The score as deviations from the mean."""
        return (score - self.mean) / self.std


def measure_scale(judge: Judge, inputs: Sequence[JudgeInput]) -> RewardScale:
    """The scale under which these answers have mean 0 and deviation 1.

    Raises:
        InputError: fewer than two are scored, or all scores are equal.
    """
    verdicts = judge.score(inputs)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    std = statistics.pstdev(scores) if len(scores) > 1 else 0.0
    if not std > 0:
        why = next((verdict.note for verdict in verdicts if verdict.score is None and verdict.note), "")
        raise InputError(
            f"rl.scale: the judge scored {len(scores)} of {len(inputs)} answers{f' ({why})' if why else ''}, without "
            "two different scores, so rewards have no scale; change rl.scale.by or use more rows"
        )
    return RewardScale(mean=statistics.fmean(scores), std=std, n=len(scores), unscored=len(inputs) - len(scores))


def read_answers(place: Path) -> Iterator[JudgeInput]:
    """The answers in the data: chosen and rejected answers of pairs, or references of samples."""
    if place.is_dir() and not (place / SAMPLES).exists():
        for pair in read_pairs(place):
            prefix, known = make_prefix(pair, place.absolute()), pair.provenance.get("truth")
            truth = known if isinstance(known, dict) else {}
            yield from (JudgeInput(prefix, answer, pair.chosen, truth) for answer in (pair.chosen, pair.rejected))
        return
    folder = samples_file(place).parent.absolute()
    for sample in read_samples(place):
        if sample.reference:
            yield judge_input(sample, folder, sample.reference)


_ROLLOUTS = 2001  # purpose of the random stream; builders have other numbers


@dataclass(frozen=True)
class PolicySampler:
    """The policy, the folder of the samples' images, and the sampling settings."""

    vlm: VLM
    folder: Path
    config: RLConfig
    seed: int
    autocast: bool

    def sample(self, samples: Sequence[Sample], draw: int) -> list[list[Generation]]:
        """The policy's answers to each sample; they depend on (seed, draw, sample) and the policy's weights only.

        Draws count from 0; -1 is before training.
        """
        count = self.config.answers
        requests = [
            GenerateRequest(make_prefix(sample, self.folder), seed=int(number))
            for sample in samples
            for number in sample_rng(self.seed, sample, _ROLLOUTS, draw + 1).integers(2**63, size=count)
        ]
        generations = generate(
            self.vlm,
            requests,
            Sampling(self.config.max_new_tokens, temperature=1.0),  # any other temperature would not be on-policy
            batch_size=self.config.sampling_batch,
            autocast=self.autocast,
        )
        return [generations[start : start + count] for start in range(0, len(generations), count)]

    def judge_inputs(
        self, samples: Sequence[Sample], answers_by_sample: Sequence[Sequence[Generation]]
    ) -> list[JudgeInput]:
        """The answers as judge inputs, prompt by prompt."""
        return [
            judge_input(sample, self.folder, answer.text.strip())
            for sample, answers in zip(samples, answers_by_sample, strict=True)
            for answer in answers
        ]


@dataclass(frozen=True)
class RolloutBatch:
    """Rollouts before credit, and the number of unscored answers; prompts with too few answers are missing."""

    rollouts: list[Rollout]
    unscored: int
    note: str  # the judge's note on an unscored answer


def sample_rollouts(
    sampler: PolicySampler, samples: Sequence[Sample], draw: int, judge: Judge, scale: RewardScale
) -> RolloutBatch:
    """Sample, judge, and keep what was scored."""
    answers_by_sample = sampler.sample(samples, draw)
    with evaluating(sampler.vlm):  # the policy may be the judge
        verdicts = judge.score(sampler.judge_inputs(samples, answers_by_sample))
    rest = iter(verdicts)
    rollouts = []
    for sample, answers in zip(samples, answers_by_sample, strict=True):
        kept = [
            _score_answer(answer, verdict.score, scale, sampler.config.unfinished_penalty)
            for answer, verdict in zip(answers, rest, strict=False)
            if verdict.score is not None
        ]
        if len(kept) >= sampler.config.min_answers:
            rollouts.append(_rollout(sample, sampler.folder, kept))
    unscored = [verdict for verdict in verdicts if verdict.score is None]
    note = next((verdict.note for verdict in unscored if verdict.note), "")
    return RolloutBatch(rollouts, len(unscored), note)


def _score_answer(answer: Generation, score: float, scale: RewardScale, penalty: float) -> SampledAnswer:
    reward = scale(score) - (0.0 if answer.finished else penalty)
    return SampledAnswer(ids=answer.ids, finished=answer.finished, score=score, reward=reward)


def _rollout(sample: Sample, folder: Path, answers: Sequence[SampledAnswer]) -> Rollout:
    images = tuple(str(path) for path in make_prefix(sample, folder).images)
    return Rollout(
        sample_id=sample.id,
        images=images,
        media=sample.media,
        history=sample.history,
        prompt=sample.prompt,
        answers=tuple(answers),
    )
