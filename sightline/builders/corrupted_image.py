"""The policy's answer under a weakened picture or prompt against a better one: BPO, SeVa and STIC by their settings.

BPO (arXiv 2403.08730) prefers the reference to the answer under a spoiled picture, SeVa (2404.10501) the policy's own
answer to the clean picture, STIC (2405.19716) its answer to a good prompt to that under a bad prompt or a spoiled
picture. Pictures are weakened by `views`; where the papers are silent, the choice stands in `WeakenedConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from sightline.builders.builder import Builder, BuildResult, batched, make_pair, require_reference, sample_rng
from sightline.builders.image_corruptions import view_of, weakened
from sightline.builders.sampled_answers import PICTURES, AnswersConfig, k_requests, rejected_seed, say, tokens_of
from sightline.errors import InputError
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import GenerateRequest, Generation, Prefix, prefix_of
from sightline.records import Sample
from sightline.records.rows import IMAGE

NO_PICTURE = "no picture to weaken"
CUT_OFF = "max_new_tokens cut the chosen answer off"
NONE = "none"


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class WeakenedConfig(AnswersConfig):
    """Settings of weakened pairs; `temperature` is the rejected side's, and the chosen one's where that has none."""

    chosen: Literal["reference", "own"] = Field(description="the sample's reference, or the policy's unweakened answer")
    image: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = Field(
        default=(NONE,), min_length=1, description="a view of the picture, or several, one of which is drawn; or none"
    )
    bad_prompt: str = Field(default="", description="what the rejected side is asked")
    good_prompt: str = Field(default="", description="what the chosen side is asked")
    place: Literal["before", "instead"] = Field(default="instead", description="where those stand to the prompt")
    by: Literal["both", "either"] = Field(
        default="both", description="weaken picture and prompt, or by a coin for each sample one of the two"
    )
    chosen_temperature: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _weakens(self) -> "WeakenedConfig":
        try:
            for name in set(self.image) - {NONE}:
                view_of(name)
        except InputError as error:
            raise ValueError(f"{error}, or {NONE}") from error
        if NONE in self.image and len(self.image) > 1:
            raise ValueError(f"image says {NONE} beside other views; leave one of the two out")
        if self.good_prompt and self.chosen == "reference":
            raise ValueError("good_prompt is for chosen: own; a reference is not asked for")
        sorts = (self.image != (NONE,)) + bool(self.bad_prompt)
        if not sorts or (self.by == "either" and sorts < 2):
            raise ValueError("nothing is weakened; set image or bad_prompt, and both of them for by: either")
        return self


@dataclass(frozen=True)
class _Weak:
    """The rejected side of a sample: what it is asked, and how that was weakened."""

    request: GenerateRequest
    image: str
    by_prompt: bool


def build_weakened(samples: Iterable[Sample], tools: RunContext, config: WeakenedConfig) -> Iterator[BuildResult]:
    """One pair a sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        weak = [_weak(sample, tools, config) for sample in wave]
        strong = _strong(wave, weak, tools, config)
        # Whose better answer cannot serve is not asked for a worse one.
        served = zip(weak, strong, strict=True)
        asked = [[one.request] if one and better and _serves(better[0], config) else [] for one, better in served]
        worse = say(tools, asked, config)
        for sample, one, better, bad in zip(wave, weak, strong, worse, strict=True):
            yield _made(sample, one, better, bad, config)


def told(prefix: Prefix, text: str, place: Literal["before", "instead"]) -> Prefix:
    """The prefix with `text` before its prompt, or instead of it; the places of pictures stay. No text, no change."""
    if not text:
        return prefix
    if place == "before":
        return replace(prefix, prompt=f"{text}\n{prefix.prompt}")
    return replace(prefix, prompt=f"{IMAGE}\n" * prefix.prompt.count(IMAGE) + text)


def _weak(sample: Sample, tools: RunContext, config: WeakenedConfig) -> _Weak | None:
    """None where there is no picture to weaken."""
    rng = sample_rng(tools.seed, sample, PICTURES)
    by_prompt = bool(config.bad_prompt) and (config.by == "both" or bool(rng.random() < 0.5))
    name = NONE if by_prompt and config.by == "either" else config.image[int(rng.integers(len(config.image)))]
    prefix = prefix_of(sample, tools.folder)
    if name != NONE and not prefix.images:
        return None
    if name != NONE:
        prefix = replace(prefix, images=tuple(weakened(path, name, tools, rng) for path in prefix.images))
    prefix = told(prefix, config.bad_prompt if by_prompt else "", config.place)
    return _Weak(GenerateRequest(prefix, seed=rejected_seed(sample, tools.seed)), name, by_prompt)


def _strong(
    wave: Sequence[Sample], weak: Sequence[_Weak | None], tools: RunContext, config: WeakenedConfig
) -> list[list[Generation] | None]:
    """The better answer of each sample: none where there is no worse one to ask for, None where it would not fit."""
    if config.chosen == "reference":
        return [[Generation(require_reference(sample), 0, finished=True)] for sample in wave]
    asked = []
    for sample, one in zip(wave, weak, strict=True):
        prefix = told(prefix_of(sample, tools.folder), config.good_prompt, config.place)
        asked.append(k_requests(sample, prefix, tools.seed, 1) if one else [])
    return say(tools, asked, config, temperature=config.chosen_temperature)


def _serves(answer: Generation, config: WeakenedConfig) -> bool:
    return answer.finished or config.unfinished


def _made(
    sample: Sample,
    weak: _Weak | None,
    better: Sequence[Generation] | None,
    worse: Sequence[Generation] | None,
    config: WeakenedConfig,
) -> BuildResult:
    tokens = tokens_of(better or ()) + tokens_of(worse or ())
    if weak is None or not better or not worse:
        reason = NO_PICTURE if weak is None else CUT_OFF if better and not _serves(better[0], config) else TOO_LONG
        return BuildResult(sample_id=sample.id, dropped=reason, tallies={"generated_tokens": tokens})
    provenance = {
        "chosen": config.chosen,
        "image": weak.image,
        "bad_prompt": weak.by_prompt,
        "good_prompt": bool(config.good_prompt),
        "chosen_finished": better[0].finished,
        "rejected_finished": worse[0].finished,
        "tokens": tokens,
    }
    pair = make_pair(sample, WEAKENED.name, better[0].text, worse[0].text, provenance=provenance)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies={"generated_tokens": tokens})


WEAKENED = Builder(
    name="weakened",
    summary="Answer under a spoiled picture or a bad prompt (BPO 2403.08730, SeVa 2404.10501, STIC 2405.19716).",
    config=WeakenedConfig,
    build=build_weakened,
    needs_reference=lambda config: config.chosen == "reference",
    remedy="weaken more, or sample at a higher temperature",
)
