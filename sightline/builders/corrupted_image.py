"""The policy's answer under a corrupted image or a bad prompt, against a better one: BPO, SeVa and STIC by settings.

BPO (arXiv 2403.08730) prefers the reference to the answer under a corrupted image, SeVa (2404.10501) the policy's own
answer to the clean image, STIC (2405.19716) its answer to a good prompt over that to a bad prompt or a corrupted image.
`image_corruptions` corrupts images; choices that the papers leave open are in `WeakenedConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from sightline.builders.builder import Builder, BuildResult, batched, make_pair, require_reference, sample_rng
from sightline.builders.image_corruptions import corrupt_image, get_corruption
from sightline.builders.sampled_answers import (
    PICTURES,
    AnswersConfig,
    Unanswered,
    answer_requests,
    count_tokens,
    rejected_seed,
    sample_answers,
)
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.requests import GenerateRequest, Generation, Prefix, make_prefix
from sightline.records import Sample
from sightline.records.rows import IMAGE

NO_PICTURE = "no picture to weaken"
CUT_OFF = "max_new_tokens cut the chosen answer off"
NONE = "none"


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class WeakenedConfig(AnswersConfig):
    """Settings of weakened pairs; `temperature` applies to both sides unless `chosen_temperature` is set."""

    chosen: Literal["reference", "own"] = Field(
        description="the sample's reference, or the policy's answer without corruption"
    )
    image: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        default=(NONE,), min_length=1, description="one image corruption, or several to draw from; or none"
    )
    bad_prompt: str = Field(default="", description="prompt of the rejected side")
    good_prompt: str = Field(default="", description="prompt of the chosen side")
    place: Literal["before", "instead"] = Field(
        default="instead", description="whether these precede the prompt or replace it"
    )
    by: Literal["both", "either"] = Field(
        default="both", description="corrupt image and prompt, or one of the two at random per sample"
    )
    chosen_temperature: float | None = Field(
        default=None, ge=0, description="temperature of the chosen side; null: `temperature`, 0: greedy"
    )

    @model_validator(mode="after")
    def _is_complete(self) -> "WeakenedConfig":
        try:
            for name in set(self.image) - {NONE}:
                get_corruption(name)
        except InputError as error:
            raise ValueError(f"{error}, or {NONE}") from error
        if NONE in self.image and len(self.image) > 1:
            raise ValueError(f"image lists {NONE} beside corruptions; remove one of the two")
        if self.good_prompt and self.chosen == "reference":
            raise ValueError("good_prompt needs chosen: own; a reference is not sampled")
        kinds = (self.image != (NONE,)) + bool(self.bad_prompt)
        if not kinds or (self.by == "either" and kinds < 2):
            raise ValueError("nothing is corrupted; set image or bad_prompt, and both for by: either")
        return self


@dataclass(frozen=True)
class _RejectedSide:
    """The rejected side of a sample: its request, the image corruption, and whether the bad prompt is used."""

    request: GenerateRequest
    image: str
    by_prompt: bool


def build_weakened(samples: Iterable[Sample], context: RunContext, config: WeakenedConfig) -> Iterator[BuildResult]:
    """Yield one result per sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        sides = [_rejected_side(sample, context, config) for sample in wave]
        better = _better_answers(wave, sides, context, config)
        # A sample without a usable better answer needs no worse one.
        requests = [
            [side.request] if side and any(_is_usable(answer, config) for answer in answers) else []
            for side, answers in zip(sides, better, strict=True)
        ]
        worse = sample_answers(context, requests, config)
        for sample, side, good, bad in zip(wave, sides, better, worse, strict=True):
            yield _make_result(sample, side, good, bad, config)


def with_prompt(prefix: Prefix, text: str, place: Literal["before", "instead"]) -> Prefix:
    """Put `text` before or instead of the prefix's prompt; image placeholders stay. Empty text changes nothing."""
    if not text:
        return prefix
    if place == "before":
        return replace(prefix, prompt=f"{text}\n{prefix.prompt}")
    return replace(prefix, prompt=f"{IMAGE}\n" * prefix.prompt.count(IMAGE) + text)


def _rejected_side(sample: Sample, context: RunContext, config: WeakenedConfig) -> _RejectedSide | None:
    """Build the rejected side; None if there is no image to corrupt."""
    rng = sample_rng(context.seed, sample, PICTURES)
    by_prompt = bool(config.bad_prompt) and (config.by == "both" or bool(rng.random() < 0.5))
    name = NONE if by_prompt and config.by == "either" else config.image[int(rng.integers(len(config.image)))]
    prefix = make_prefix(sample, context.folder)
    if name != NONE and not prefix.images:
        return None
    if name != NONE:
        prefix = replace(prefix, images=tuple(corrupt_image(path, name, context, rng) for path in prefix.images))
    prefix = with_prompt(prefix, config.bad_prompt if by_prompt else "", config.place)
    return _RejectedSide(GenerateRequest(prefix, seed=rejected_seed(sample, context.seed)), name, by_prompt)


def _better_answers(
    wave: Sequence[Sample], sides: Sequence[_RejectedSide | None], context: RunContext, config: WeakenedConfig
) -> list[list[Generation] | Unanswered]:
    """Return each sample's better answer: empty if there is no rejected side."""
    if config.chosen == "reference":
        return [[Generation(require_reference(sample), 0, finished=True)] for sample in wave]
    requests = []
    for sample, side in zip(wave, sides, strict=True):
        prefix = with_prompt(make_prefix(sample, context.folder), config.good_prompt, config.place)
        requests.append(answer_requests(sample, prefix, context.seed, 1) if side else [])
    return sample_answers(context, requests, config, temperature=config.chosen_temperature)


def _is_usable(answer: Generation, config: WeakenedConfig) -> bool:
    return answer.finished or config.unfinished


def _make_result(
    sample: Sample,
    side: _RejectedSide | None,
    better: Sequence[Generation] | Unanswered,
    worse: Sequence[Generation] | Unanswered,
    config: WeakenedConfig,
) -> BuildResult:
    tokens = count_tokens(better) + count_tokens(worse)
    for answers in (better, worse):
        if side is not None and isinstance(answers, Unanswered):
            return answers.result(sample, {"generated_tokens": tokens})
    if side is None or isinstance(better, Unanswered) or isinstance(worse, Unanswered) or not worse:
        reason = NO_PICTURE if side is None else CUT_OFF
        return BuildResult(sample_id=sample.id, dropped=reason, tallies={"generated_tokens": tokens})
    provenance = {
        "chosen": config.chosen,
        "image": side.image,
        "bad_prompt": side.by_prompt,
        "good_prompt": bool(config.good_prompt),
        "chosen_finished": better[0].finished,
        "rejected_finished": worse[0].finished,
        "tokens": tokens,
    }
    pair = make_pair(sample, WEAKENED.name, better[0].text, worse[0].text, provenance=provenance)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies={"generated_tokens": tokens})


WEAKENED = Builder(
    name="weakened",
    summary="Answer under a corrupted image or a bad prompt (BPO 2403.08730, SeVa 2404.10501, STIC 2405.19716).",
    config=WeakenedConfig,
    build=build_weakened,
    needs_reference=lambda config: config.chosen == "reference",
    remedy="corrupt the image more, or raise the temperature",
)
