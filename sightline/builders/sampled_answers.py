"""Sampling of the policy for builders: k answers per sample, or any requests; a row depends on (sample, seed) alone.

Builders that compare, check or corrupt the policy's answers share it; each of them makes its own pairs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pydantic import Field

from sightline.builders.builder import BuildResult, SampledConfig, sample_rng
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import fits
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Prefix
from sightline.models.vlm import VLM
from sightline.records import Sample

# Purposes of a row's random stream. BDHS uses 1 and up for its tries; all builders share the answers' stream.
_ANSWERS, _REJECTED, PICTURES, CHOICES = 1001, 1002, 1003, 1004


class AnswersConfig(SampledConfig):
    """Sampling settings of builders that may choose a sampled answer."""

    unfinished: bool = Field(default=False, description="allow a chosen answer that max_new_tokens cut off")


def answer_seeds(sample: Sample, seed: int, count: int) -> list[int]:
    """Return the seeds of a sample's answers; a larger count extends a smaller one."""
    return [int(number) for number in sample_rng(seed, sample, _ANSWERS).integers(2**63, size=count)]


def rejected_seed(sample: Sample, seed: int) -> int:
    """Return the seed of the text meant to be the worse one; no answer has it."""
    return int(sample_rng(seed, sample, _REJECTED).integers(2**63))


def answer_requests(sample: Sample, prefix: Prefix, seed: int, k: int) -> list[GenerateRequest]:
    """Return requests for `k` answers to one prompt of a sample, which differ in their seeds alone."""
    return [GenerateRequest(prefix, seed=one) for one in answer_seeds(sample, seed, k)]


#: Reasons why a server gave no answer: it will never give one; it may give one later.
REFUSED, FAILED = "the server refuses to answer", "the server failed"


@dataclass(frozen=True)
class Unanswered:
    """Why a sample has no answers. It is empty and false, as a list without answers is."""

    reason: str = TOO_LONG
    may_pass: bool = False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Generation]:
        return iter(())

    def result(self, sample: Sample, tallies: Mapping[str, float] | None = None) -> BuildResult:
        """The result of a sample without answers."""
        return BuildResult(
            sample_id=sample.id, dropped=self.reason, tallies=dict(tallies or {}), unfinished=self.may_pass
        )


def sample_answers(
    context: RunContext,
    requests: Sequence[Sequence[GenerateRequest]],
    config: SampledConfig,
    *,
    temperature: float | None = None,
) -> list[list[Generation] | Unanswered]:
    """Sample the requests of each sample, all in one run.

    A sample is unanswered if its requests do not fit the model, or if a server failed to answer one of them: a row must
    not depend on which of its answers a busy server gave. `temperature` overrides the config's.
    """
    sampling = config.sampling()
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    # Where no model is open, the server knows what fits.
    model = context.policy
    fitting = [model is None or _fit(model, group, sampling.max_new_tokens) for group in requests]
    flat = [request for group, fit in zip(requests, fitting, strict=True) if fit for request in group]
    generator = context.generator(batch_size=config.batch_size, autocast=config.autocast)
    answers = iter(generator.sample(flat, sampling))
    return [
        _answers_of(list(islice(answers, len(group)))) if fit else Unanswered()
        for group, fit in zip(requests, fitting, strict=True)
    ]


def _answers_of(answers: Sequence[Generation | FailedGeneration]) -> list[Generation] | Unanswered:
    failed = [answer for answer in answers if isinstance(answer, FailedGeneration)]
    if failed:
        may_pass = all(answer.may_pass for answer in failed)
        return Unanswered(FAILED if may_pass else REFUSED, may_pass)
    return [answer for answer in answers if isinstance(answer, Generation)]


def distinct_answers(answers: Iterable[Generation]) -> list[Generation]:
    """Return the non-empty answers, each text once and at its first place.

    A text that ended once and was cut off another time counts as ended.
    """
    found: dict[str, Generation] = {}
    for answer in answers:
        text = answer.text.strip()
        if text and not (text in found and found[text].finished):
            found[text] = answer
    return list(found.values())


def count_tokens(answers: Iterable[Generation]) -> int:
    """Return the total number of generated tokens."""
    return sum(answer.tokens for answer in answers)


def _fit(vlm: VLM, requests: Sequence[GenerateRequest], new_tokens: int) -> bool:
    distinct = {(request.prefix, request.prefill) for request in requests}
    return all(fits(vlm, prefix, prefill, new_tokens) for prefix, prefill in distinct)
