"""What the policy says to samples: k answers each, or any requests, wave by wave, a row by (sample, seed) alone.

The sampling part of the builders that compare, check or weaken what the policy says; what makes a pair of it is theirs.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pydantic import Field

from sightline.builders.builder import SampledConfig, sample_rng
from sightline.models.context import RunContext
from sightline.models.encoding import fits
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records import Sample

# What a row's random stream is for. BDHS has 1 and up, its tries; answers are the same whoever asks for them.
_ANSWERS, _REJECTED, PICTURES, CHOICES = 1001, 1002, 1003, 1004


class AnswersConfig(SampledConfig):
    """How the policy is let answer where an answer of its own may be the chosen one."""

    unfinished: bool = Field(default=False, description="let an answer be chosen that max_new_tokens cut off")


def answer_seeds(sample: Sample, seed: int, count: int) -> list[int]:
    """The seeds of a sample's answers; of more answers the first are the same."""
    return [int(number) for number in sample_rng(seed, sample, _ANSWERS).integers(2**63, size=count)]


def rejected_seed(sample: Sample, seed: int) -> int:
    """The seed of what is written to be the worse of two; that of no answer."""
    return int(sample_rng(seed, sample, _REJECTED).integers(2**63))


def k_requests(sample: Sample, prefix: Prefix, seed: int, k: int) -> list[GenerateRequest]:
    """`k` answers to one prompt of a sample, which differ by their seeds alone."""
    return [GenerateRequest(prefix, seed=one) for one in answer_seeds(sample, seed, k)]


def say(
    tools: RunContext,
    asked: Sequence[Sequence[GenerateRequest]],
    config: SampledConfig,
    *,
    temperature: float | None = None,
) -> list[list[Generation] | None]:
    """What the policy writes to the requests of each sample, all in one run; None where one would not fit the model.

    `temperature` is that of this run where it is not the config's.
    """
    drawn = config.sampling()
    heat = drawn.temperature if temperature is None else temperature
    sampling = Sampling(drawn.max_new_tokens, heat, drawn.top_p)
    fitting = [_fit(tools.vlm, requests, sampling.max_new_tokens) for requests in asked]
    flat = [request for requests, fit in zip(asked, fitting, strict=True) if fit for request in requests]
    said: Iterator[Generation | None]
    if tools.answering is None:
        said = iter(generate(tools.vlm, flat, sampling, batch_size=config.batch_size, autocast=config.autocast))
    else:
        said = iter(tools.answering(flat, sampling))
    return [
        [made for made in islice(said, len(requests)) if made is not None] if fit else None
        for requests, fit in zip(asked, fitting, strict=True)
    ]


def distinct(answers: Iterable[Generation]) -> list[Generation]:
    """The answers that say something, each text once and at its first place.

    A text that ended by itself once and was cut off another time counts as ended.
    """
    found: dict[str, Generation] = {}
    for answer in answers:
        text = answer.text.strip()
        if text and not (text in found and found[text].finished):
            found[text] = answer
    return list(found.values())


def tokens_of(answers: Iterable[Generation]) -> int:
    """What the answers cost."""
    return sum(answer.tokens for answer in answers)


def _fit(vlm: VLM, requests: Sequence[GenerateRequest], new_tokens: int) -> bool:
    different = {(request.prefix, request.prefill) for request in requests}
    return all(fits(vlm, prefix, prefill, new_tokens) for prefix, prefill in different)
