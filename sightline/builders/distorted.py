"""The reference re-drawn token by token under a noised image: POVID's distortion (arXiv 2402.11411).

Each token of the rejected answer is drawn given the true ones before it, so that it repeats the reference with local
errors (arXiv 2407.02477, "POVID-style"). POVID's code scores the drawn tokens; a pair holds text, which may tokenize
differently when read: the manifest counts how often.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, always, batched, make_pair, require_reference, sample_rng
from sightline.builders.image_corruptions import STEPS, corrupt_image
from sightline.builders.sampled_answers import PICTURES, rejected_seed
from sightline.config import Config
from sightline.errors import InputError
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.requests import Prefix, make_prefix
from sightline.models.teacher_forcing import ForcedAnswer, ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.records import Sample

NO_PICTURE = "no picture to weaken"
NO_TOKENS = "the distorted answer cannot be read as tokens"


class DistortedConfig(Config):
    """Settings of distortion. POVID's: 500 steps; its paper draws the tokens, its code takes the most likely ones."""

    rule: Literal["sample", "argmax"] = Field(
        default="sample",
        description="draw each token from its distribution (the paper), or take the likeliest (its code)",
    )
    noise_steps: int = Field(default=500, ge=0, le=STEPS, description="diffusion steps of noise on the image")
    temperature: float = Field(default=1.0, gt=0, description="for rule sample; not in the paper")
    batch_size: int = Field(default=16, gt=0, description="rows per forward pass")
    wave: int = Field(default=64, gt=0, description="samples in flight")
    autocast: bool = Field(default=False, description="bfloat16 autocast")


def build_distorted(samples: Iterable[Sample], context: RunContext, config: DistortedConfig) -> Iterator[BuildResult]:
    """Yield one result per sample, chosen = its reference, in order; a row depends on (sample, seed) alone."""
    temperature = 0.0 if config.rule == "argmax" else config.temperature
    for wave in batched(samples, config.wave):
        forcings = [_forcing(sample, context, config) for sample in wave]
        forced = iter(
            forced_tokens(
                context.vlm,
                [one for one in forcings if isinstance(one, ForcingRequest)],
                temperature=temperature,
                batch_size=config.batch_size,
                autocast=config.autocast,
            )
        )
        for sample, one in zip(wave, forcings, strict=True):
            if isinstance(one, ForcingRequest):
                yield _make_result(sample, one.prefix, next(forced), context.vlm, config)
            else:
                yield BuildResult(sample_id=sample.id, dropped=one)


def _forcing(sample: Sample, context: RunContext, config: DistortedConfig) -> ForcingRequest | str:
    """Return the reference under the noised image, or the reason why there is none."""
    if not sample.images:
        return NO_PICTURE
    prefix, reference = make_prefix(sample, context.folder), require_reference(sample)
    try:
        encode_answer(context.vlm, encode_prefix(context.vlm, prefix), reference)
    except RowTooLong:
        return TOO_LONG
    rng = sample_rng(context.seed, sample, PICTURES)
    noisy_images = tuple(corrupt_image(path, f"noise-{config.noise_steps}", context, rng) for path in prefix.images)
    return ForcingRequest(replace(prefix, images=noisy_images), reference, rejected_seed(sample, context.seed))


def _make_result(
    sample: Sample, prefix: Prefix, forced: ForcedAnswer, vlm: VLM, config: DistortedConfig
) -> BuildResult:
    text = forced.text.strip()
    tokens = len(forced.ids)
    tallies: dict[str, float] = {"forced_tokens": tokens, "share_tokens_changed": forced.changed / tokens}
    try:
        read = _tokens(vlm, prefix, text)
    except InputError:  # the text spells a special token, or is too long when tokenized again
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
    summary="Redraw the reference's tokens under a noised image (POVID, arXiv 2402.11411).",
    config=DistortedConfig,
    build=build_distorted,
    needs_reference=always,
    remedy="raise noise_steps or the temperature",
)
