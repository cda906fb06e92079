"""DropoutNTP: half an answer, gone on from without the picture, against the whole one (MPO, arXiv 2411.10442).

No reference and no judge is needed: what the model adds blindly is the rejected answer. Where the paper is silent, the
choice stands in `DropoutNTPConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, batched, make_pair, require_reference
from sightline.builders.sampled_answers import AnswersConfig, k_requests, rejected_seed, say, tokens_of
from sightline.data.sentences import count_words, cut_before_word
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import GenerateRequest, Generation, prefix_of, without_pictures
from sightline.models.sampler import image_token_count
from sightline.records import Sample

NO_PICTURE = "no picture to leave out"
NO_PROMPT = "nothing is asked without the picture"
NO_ANSWER = "the model says nothing"
CUT_OFF = "max_new_tokens cut the chosen answer off"


class DropoutNTPConfig(AnswersConfig):
    """Settings of DropoutNTP. The paper: half of a sampled answer; a quarter and three quarters did worse."""

    chosen: Literal["sampled", "reference"] = Field(default="sampled", description="whose answer is cut, and chosen")
    keep: float = Field(default=0.5, ge=0, lt=1, description="share of the answer's words that is kept, rounded down")
    without: Literal["removed", "hidden"] = Field(
        default="removed", description="the picture is not in the prompt, or all its tokens are hidden in their places"
    )


def build_dropout_ntp(samples: Iterable[Sample], tools: RunContext, config: DropoutNTPConfig) -> Iterator[BuildResult]:
    """One pair a sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        blind = [_blind(sample, tools, config) for sample in wave]
        wholes = _wholes(wave, blind, tools, config)
        asked = [_go_on(*both, config) for both in zip(blind, wholes, strict=True)]
        for sample, whole, rest in zip(wave, wholes, say(tools, asked, config), strict=True):
            yield _made(sample, whole, rest, config)


def beginning(answer: str, keep: float) -> str:
    """The first words of an answer: the given share of them, rounded down, so that one at least is left to write."""
    return cut_before_word(answer, int(count_words(answer) * keep)).rstrip()


def _blind(sample: Sample, tools: RunContext, config: DropoutNTPConfig) -> GenerateRequest | None:
    """The sample's prompt without its picture, for the model to go on from; None where that makes no sense."""
    prefix, seed = prefix_of(sample, tools.folder), rejected_seed(sample, tools.seed)
    if not sample.images:
        return None
    if config.without == "hidden":
        return GenerateRequest(prefix, hidden=frozenset(range(image_token_count(tools.vlm, prefix))), seed=seed)
    left = without_pictures(prefix)
    return GenerateRequest(left, seed=seed) if left.prompt.strip() else None


def _wholes(
    wave: Sequence[Sample], blind: Sequence[GenerateRequest | None], tools: RunContext, config: DropoutNTPConfig
) -> list[list[Generation] | None]:
    """The answer to cut for each sample: none where there is no blind prompt, None where it could not be sampled."""
    if config.chosen == "reference":
        return [
            [Generation(require_reference(s), 0, finished=True)] if b else [] for s, b in zip(wave, blind, strict=True)
        ]
    asked = [
        k_requests(sample, prefix_of(sample, tools.folder), tools.seed, 1) if request else []
        for sample, request in zip(wave, blind, strict=True)
    ]
    return say(tools, asked, config)


def _go_on(
    blind: GenerateRequest | None, whole: Sequence[Generation] | None, config: DropoutNTPConfig
) -> list[GenerateRequest]:
    if blind is None or not whole or not _serves(whole[0], config):
        return []
    return [replace(blind, prefill=beginning(whole[0].text.strip(), config.keep))]


def _serves(answer: Generation, config: DropoutNTPConfig) -> bool:
    return bool(answer.text.strip()) and (answer.finished or config.unfinished)


def _made(
    sample: Sample, whole: Sequence[Generation] | None, rest: Sequence[Generation] | None, config: DropoutNTPConfig
) -> BuildResult:
    tokens = tokens_of(whole or ()) + tokens_of(rest or ())
    if not whole or not rest:
        reason = _reason(sample, whole, config)
        return BuildResult(sample_id=sample.id, dropped=reason, tallies={"generated_tokens": tokens})
    chosen = whole[0].text.strip()
    kept = beginning(chosen, config.keep)
    provenance = {
        "chosen": config.chosen,
        "kept_words": count_words(kept),
        "chosen_words": count_words(chosen),
        "without": config.without,
        "chosen_finished": whole[0].finished,
        "rejected_finished": rest[0].finished,
        "tokens": tokens,
    }
    pair = make_pair(sample, DROPOUT_NTP.name, chosen, kept + rest[0].text, provenance=provenance)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies={"generated_tokens": tokens})


def _reason(sample: Sample, whole: Sequence[Generation] | None, config: DropoutNTPConfig) -> str:
    """Why there is nothing to go on from."""
    if not sample.images:
        return NO_PICTURE
    if whole is None:
        return TOO_LONG
    if not whole:
        return NO_PROMPT
    if not whole[0].text.strip():
        return NO_ANSWER
    return TOO_LONG if _serves(whole[0], config) else CUT_OFF


DROPOUT_NTP = Builder(
    name="dropout-ntp",
    summary="Cut an answer in half and go on without the picture (DropoutNTP of MPO, arXiv 2411.10442).",
    config=DropoutNTPConfig,
    build=build_dropout_ntp,
    needs_reference=lambda config: config.chosen == "reference",
    remedy="try a higher temperature, a smaller keep, or more max_new_tokens",
)
