"""Sampling of the policy for builders: k answers per sample, or any requests; a row depends on (sample, seed) alone.

Builders that compare, check or corrupt the policy's answers share it; each of them makes its own pairs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from pydantic import Field

from sightline.builders.builder import SampledConfig, sample_rng
from sightline.models.context import RunContext
from sightline.models.encoding import fits
from sightline.models.requests import GenerateRequest, Generation, Prefix
from sightline.models.sampler import generate
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


def sample_answers(
    context: RunContext,
    requests: Sequence[Sequence[GenerateRequest]],
    config: SampledConfig,
    *,
    temperature: float | None = None,
) -> list[list[Generation] | None]:
    """Sample the requests of each sample, all in one run; None for a sample whose requests do not fit the model.

    `temperature` overrides the config's.
    """
    sampling = config.sampling()
    if temperature is not None:
        sampling = replace(sampling, temperature=temperature)
    fitting = [_fit(context.vlm, group, sampling.max_new_tokens) for group in requests]
    flat = [request for group, fit in zip(requests, fitting, strict=True) if fit for request in group]
    answers: Iterator[Generation | None]
    if context.answering is None:
        answers = iter(generate(context.vlm, flat, sampling, batch_size=config.batch_size, autocast=config.autocast))
    else:
        answers = iter(context.answering(flat, sampling))
    return [
        [answer for answer in islice(answers, len(group)) if answer is not None] if fit else None
        for group, fit in zip(requests, fitting, strict=True)
    ]


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
