"""The reference's words as the model would put them under a noised picture: POVID's distortion (arXiv 2402.11411).

Each token of the rejected answer is drawn given the true ones before it, so that it says the reference with slips of
the tongue (arXiv 2407.02477, "POVID-style"). POVID's code scores the drawn tokens themselves; a pair holds text, which
may be cut into other tokens when it is read: how often is in the manifest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, always, batched, make_pair, require_reference, sample_rng
from sightline.builders.image_corruptions import STEPS, weakened
from sightline.builders.sampled_answers import PICTURES, rejected_seed
from sightline.config import Config
from sightline.errors import InputError
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.requests import Prefix, prefix_of
from sightline.models.teacher_forcing import ForcedAnswer, ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.records import Sample

NO_PICTURE = "no picture to weaken"
NO_TOKENS = "the distorted answer cannot be read as tokens"


class DistortedConfig(Config):
    """Settings of distortion. POVID's: 500 steps; its paper draws the tokens, its code takes the likeliest."""

    rule: Literal["sample", "argmax"] = "sample"
    noise_steps: int = Field(default=500, ge=0, le=STEPS, description="diffusion steps of noise on the picture")
    temperature: float = Field(default=1.0, gt=0, description="of rule sample; not in the paper")
    batch_size: int = Field(default=16, gt=0, description="rows in one pass")
    wave: int = Field(default=64, gt=0, description="samples in flight")
    autocast: bool = Field(default=False, description="bfloat16 autocast")


def build_distorted(samples: Iterable[Sample], tools: RunContext, config: DistortedConfig) -> Iterator[BuildResult]:
    """One pair a sample, chosen = its reference, in order; a row depends on (sample, seed) alone."""
    heat = 0.0 if config.rule == "argmax" else config.temperature
    for wave in batched(samples, config.wave):
        asked = [_asked(sample, tools, config) for sample in wave]
        forced = iter(
            forced_tokens(
                tools.vlm,
                [one for one in asked if isinstance(one, ForcingRequest)],
                temperature=heat,
                batch_size=config.batch_size,
                autocast=config.autocast,
            )
        )
        for sample, one in zip(wave, asked, strict=True):
            if isinstance(one, ForcingRequest):
                yield _made(sample, one.prefix, next(forced), tools.vlm, config)
            else:
                yield BuildResult(sample_id=sample.id, dropped=one)


def _asked(sample: Sample, tools: RunContext, config: DistortedConfig) -> ForcingRequest | str:
    """The reference under the noised picture, or why there is none."""
    if not sample.images:
        return NO_PICTURE
    prefix, reference = prefix_of(sample, tools.folder), require_reference(sample)
    try:
        encode_answer(tools.vlm, encode_prefix(tools.vlm, prefix), reference)
    except RowTooLong:
        return TOO_LONG
    rng = sample_rng(tools.seed, sample, PICTURES)
    noised = tuple(weakened(path, f"noise-{config.noise_steps}", tools, rng) for path in prefix.images)
    return ForcingRequest(replace(prefix, images=noised), reference, rejected_seed(sample, tools.seed))


def _made(sample: Sample, prefix: Prefix, forced: ForcedAnswer, vlm: VLM, config: DistortedConfig) -> BuildResult:
    text = forced.text.strip()
    tokens = len(forced.ids)
    tallies: dict[str, float] = {"forced_tokens": tokens, "share_tokens_changed": forced.changed / tokens}
    try:
        read = _tokens(vlm, prefix, text)
    except InputError:  # ordinary tokens that together spell a special one, or that are more when read again
        return BuildResult(sample_id=sample.id, dropped=NO_TOKENS, tallies=tallies)
    differs = read != forced.ids
    provenance = {
        "rule": config.rule,
        "noise_steps": config.noise_steps,
        "changed_tokens": forced.changed,
        "retokenized_differently": differs,
        "tokens": tokens,
    }
    pair = make_pair(sample, DISTORTED.name, require_reference(sample), text, provenance=provenance)
    tallies["share_retokenized_differently"] = float(differs)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies=tallies)


def _tokens(vlm: VLM, prefix: Prefix, text: str) -> Sequence[int]:
    encoded = encode_prefix(vlm, prefix)
    row = encode_answer(vlm, encoded, text)
    return row.ids[row.start :]


DISTORTED = Builder(
    name="distorted",
    summary="Redraw the reference's tokens under a noised picture (POVID, arXiv 2402.11411).",
    config=DistortedConfig,
    build=build_distorted,
    needs_reference=always,
    remedy="raise noise_steps or the temperature",
)
